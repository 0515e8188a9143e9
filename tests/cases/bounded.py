"""Run some Python with little memory and little time, as small hostile files must be refused with."""

import os
import subprocess
import sys
import textwrap

BEGIN = """\
import resource, pathlib, sys
from pocketvit.errors import InputError
{imports}
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
used = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {mib} * 2**20,) * 2)
try:
{code}
except InputError as error:
    print(error)
"""


def refusal(code: str, *arguments: object, imports: str = "", mib: int = 300, timeout_s: float = 60.0) -> str:
    """What the `InputError` says that some lines raise in a process of their own.

    Args:
        code: the lines; `sys.argv` holds the arguments from 1 on.
        arguments: for them.
        imports: lines that run before memory is limited.
        mib: of memory that the lines may take beyond what is taken already.
        timeout_s: they may take.
    """
    program = BEGIN.format(imports=imports, mib=mib, code=textwrap.indent(code, "    "))
    # glibc reserves 64 MiB for each thread that has to wait for memory, more often on a busy machine.
    environ = os.environ | {"MALLOC_ARENA_MAX": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, env=environ,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout.strip()
