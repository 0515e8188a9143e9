"""Make a model that comes with the package from a finished run.

    python -m benchmarks.ship RUN [--name cifar10] [--data SOURCE]

Writes the weights in bf16, the configuration without this machine's paths, and the run's result with the accuracy of these
very weights, measured on all test images of the run's data. With --data they are read from another place than then. The
accuracy of the run's own weights stays in the file as `test_accuracy_float32`.
"""

import argparse
import json
import shlex
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from pocketvit.config import load_config, override, weights_of
from pocketvit.config.files import save_config, to_dict
from pocketvit.config.shipped import SHIPPED
from pocketvit.config.weights import Weights
from pocketvit.data.dataset import CIFAR10_FINGERPRINT
from pocketvit.files import write_atomically
from pocketvit.inference.evaluate import evaluate_run
from pocketvit.inference.export.origin import shareable
from pocketvit.inference.trained_model import load_model
from pocketvit.runs.result import RunResult
from pocketvit.studies.execution.launch import command_line


def ship(run: Path, name: str, registry: Path = SHIPPED, data: str | None = None) -> RunResult:
    """Make the folder of a model.

    Args:
        run: its finished run.
        registry: folder of the folders of models.
        data: where the run's data are now; by default where they were.
    Returns:
        the result in the folder.
    Raises:
        InputError: not a finished run, or its data have changed.
    """
    trained, config, result = load_model(run), load_config(run / "config.yaml"), RunResult.read(run / "result.json")
    content = replace(trained, model=deepcopy(trained.model).bfloat16()).content()
    with TemporaryDirectory() as place:  # a run's folder with these weights, to be measured
        measured = Path(place)
        (measured / "model.safetensors").write_bytes(content)
        (measured / "result.json").write_bytes((run / "result.json").read_bytes())
        save_config(config if data is None else override(config, {"data.source": data}), measured / "config.yaml")
        scores = evaluate_run(measured, device="cpu")
    folder, shared = registry / name, shareable(config)
    if result.data_fingerprint == CIFAR10_FINGERPRINT:  # wherever it was
        shared = override(shared, {"data.source": "cifar10"})
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "model.safetensors", content)
    write_atomically(folder / "config.yaml", yaml.safe_dump(to_dict(shared), sort_keys=False).encode())
    command = shlex.join(command_line(shared))
    for weights in weights_of(shared).values():
        command = command.replace(str(weights), weights.copied)
    result = replace(
        result,
        test_accuracy=scores["accuracy"],
        test_accuracy_tta=None,
        test_map=scores.get("map"),
        class_precisions=scores["per_class"] if "map" in scores else result.class_precisions,
        model_digest=Weights.find(folder).digest,
        command=command,
        file=folder / "result.json",
        extra={**result.extra, "test_accuracy_float32": result.test_accuracy, "test_images": scores["images"]},
    )
    result.write()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", default="cifar10")
    parser.add_argument("--data", help="where the run's data are now")
    arguments = parser.parse_args()
    result = ship(arguments.run, arguments.name, data=arguments.data)
    size = sum(file.stat().st_size for file in result.run_folder.iterdir())
    about = {"before": result.extra["test_accuracy_float32"], "images": result.extra["test_images"], "bytes": size}
    print(f"{result.run_folder}: test accuracy {result.test_accuracy:.2%} as shipped; {json.dumps(about)}")


if __name__ == "__main__":
    main()
