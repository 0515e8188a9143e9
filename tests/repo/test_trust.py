"""What could run a stranger's code, or start a program, is in few places of the package, and each is known."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "pocketvit"
KNOWN = {
    ("data/unpickler.py", "pickle"),  # the restricted reader that those of arrays and tensors are made of
    ("inference/torch_files.py", "pickle"),  # the name of an instruction
    ("usercode.py", "compile"),  # the user's own code, after consent
    ("usercode.py", "exec"),
    ("config/yaml_text.py", "yaml.load"),  # by a SafeLoader that refuses more
    ("runs/provenance.py", "subprocess"),  # git says which commit this is
    ("studies/execution/launch.py", "subprocess"),  # a study's runs, each in a process of Python
    ("studies/execution/local.py", "subprocess"),
    ("bench/start.py", "subprocess"),  # this file, to be timed
    ("training/distributed.py", "broadcast_object_list"),  # pickles, between the processes of one run
}
"""The places, with what each uses."""
MODULES = {
    "_pickle", "cloudpickle", "code", "dill", "jsonpickle", "joblib", "marshal", "multiprocessing", "pickle", "pty",
    "runpy", "shelve", "subprocess", "torch.hub", "torch.jit", "webbrowser",
}  # fmt: skip
BUILT_IN = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "os": ("system", "popen", "startfile", "posix_spawn", "exec", "spawn"),
    "torch": ("load", "package"),
    "yaml": ("load", "unsafe_load", "full_load", "Loader", "UnsafeLoader", "FullLoader"),
    "pd": ("read_pickle",),
    "dist": ("broadcast_object_list", "all_gather_object", "gather_object", "recv_object_list", "scatter_object_list"),
}
"""Functions that run what they read, by the module that has them; of os, what they begin with."""


def dangers(source: str) -> set[str]:
    """What a file uses of all that could run what it reads, or start a program."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                names = {alias.name for alias in node.names}
                found |= (names | {name.partition(".")[0] for name in names}) & MODULES
            case ast.ImportFrom(module=str(module)):
                names = {module, module.partition(".")[0], *(f"{module}.{alias.name}" for alias in node.names)}
                found |= names & MODULES
                found |= {f"{module}.{a.name}" for a in node.names if a.name in METHODS.get(module, ())}
            case ast.Call(func=ast.Name(id=name)) if name in BUILT_IN:
                found.add(name)
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name.startswith(METHODS["os"]):
                found.add(f"os.{name}")
            case ast.Attribute(value=ast.Name(id=module), attr=name) if name in METHODS.get(module, ()):
                found.add(name if module == "dist" else f"{module}.{name}")
            case ast.keyword(arg="allow_pickle", value=value) if not _is(value, False):
                found.add("allow_pickle")
            case ast.keyword(arg="weights_only" | "shell" | "trust_remote_code" as name, value=value):
                found |= {f"{name}={ast.unparse(value)}"} - {"weights_only=True", "shell=False"}
    return found


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


FILES = {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def test_what_could_run_a_strangers_code_is_where_it_is_known_to_be():
    assert {(file, use) for file, source in FILES.items() for use in dangers(source)} == KNOWN


@pytest.mark.parametrize(
    "source",
    [
        "import pickle as p", "from pickle import loads", "from torch import load", "torch.load(path)", "eval('1')",
        "np.load(file, allow_pickle=True)", "np.load(file, allow_pickle=trusted)", "yaml.load(text, Loader)",
        "from yaml import unsafe_load", "os.system('x')", "os.execv('x', [])", "import subprocess", "__import__('x')",
        "run('x', shell=True)", "torch.load(x, weights_only=False)", "from torch import hub", "exec(text)",
        "load_dataset(name, trust_remote_code=True)", "import multiprocessing.pool", "from subprocess import run", "import dill",
        "dist.gather_object(x)",
    ],
)  # fmt: skip
def test_each_way_is_found(source):
    assert dangers(source)


def test_what_is_harmless_is_left_alone():
    assert not dangers("model.eval(); re.compile('x'); torch.compile(model); np.load(file, allow_pickle=False)")
    assert not dangers("os.path.exists(x); yaml.safe_load(text); json.load(file); safetensors.torch.load(content)")


def test_no_check_of_the_package_is_an_assert():
    """`python -O` drops them. They only tell a type checker that something is there."""
    asserts = [n for source in FILES.values() for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Assert)]
    assert asserts
    for node in asserts:
        match node.test:
            case (
                ast.Compare(ops=[ast.IsNot()], comparators=[ast.Constant(value=None)])
                | ast.Call(func=ast.Name(id="isinstance"))
            ):
                continue
        pytest.fail(ast.unparse(node))
