"""What runs were trained on."""

from synthetic_results import synthetic_result

from pocketvit.runs.hardware import device, hardware, machine
from pocketvit.runs.result import RunResult


def on(name: str, num_gpus: int = 1) -> RunResult:
    return synthetic_result(device=name, num_gpus=num_gpus)


def test_the_hardware_of_most_is_the_usual_one():
    assert hardware([on("T4"), on("H100"), on("H200"), on("H100"), on("T4"), on("T4")]) == (
        "T4",
        {"H100": 2, "H200": 1},
    )
    assert hardware([on("H200"), on("H100")]) == ("H200", {"H100": 1}), "of equally many the first"
    assert hardware([]) == (None, {})
    assert hardware([on("H100"), on("H200"), on("T4")]).said_of_others() == "1 on H200, 1 on T4"


def test_a_machine_is_the_device_whatever_a_run_took_of_it():
    assert device(on("H100", 4)) == "4 × H100" and machine(on("H100", 4)) == "H100"
    assert machine(on("Xeon (1 thread)", 0)) == machine(on("Xeon (16 threads)", 0)) == "Xeon"
    assert device(on("Xeon (16 threads)", 0)) == "Xeon (16 threads)"
