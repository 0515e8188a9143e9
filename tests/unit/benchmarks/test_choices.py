"""The table of the choices' speeds: what was measured, and in words what was not."""

from benchmarks.choices import choices_table


def row(batch_size: int, variant: str, mode: str, speed: float | None, **fields) -> dict:
    ends = {"images_per_s_min": None, "images_per_s_max": None}
    if speed is not None:
        ends = {"images_per_s_min": speed - 100, "images_per_s_max": speed + 200}
    common = {"variant": variant, "mode": mode, "batch_size": batch_size, "error": None, "not_fused": None}
    return common | {"images_per_s": speed} | ends | fields


def bench(speed: float, **fields) -> dict:
    """What benchmarks/speed.py writes, as far as the table reads it; fused is twice as fast as compiled, persistent thrice."""
    rows = [
        row(size, variant, mode, speed * factor * (0.9 if mode == "recipe" else 1))
        for size, variant, factor in (
            (256, "compiled", 1),
            (256, "fused", 2),
            (256, "persistent", 3),
            (1024, "fused", 2.5),
            (1024, "persistent", 5),
        )
        for mode in ("step", "recipe")
    ]
    head = {"device": "NVIDIA H100 80GB HBM3", "versions": {"torch": "2.11.0"}, "precision": "bf16"}
    return head | {"num_params": 2_697_610, "repeats": 3, "load_averages": [1.25, 3.5], "rows": rows} | fields


def lines(table: str, start: str) -> list[str]:
    return [line for line in table.splitlines() if line.startswith(f"| `{start}`")]


def test_a_row_holds_speeds_with_their_spread_and_what_the_kernels_gain():
    table = choices_table({"paper": bench(50_000.0)})
    assert table.startswith("NVIDIA H100 80GB HBM3, PyTorch 2.11.0, bf16. Load average 1.2 – 3.5.\n\n")
    assert lines(table, "paper") == [
        "| `paper` | 2,697,610 | 45.00 ± 0.15 | 90.00 ± 0.15 | 135.00 ± 0.15 | 112.50 ± 0.15 | 225.00 ± 0.15 "
        "| 2.00 | 1.50 | 2.00 |"
    ]
    assert "median of 3 repeats" in table and "hardware" not in table and "not fused" not in table


def test_what_was_not_measured_is_no_number():
    assert choices_table({"paper": None}) == "Not measured yet."
    partly = bench(50_000.0)
    partly["rows"] = partly["rows"][:2]
    table = choices_table({"paper": bench(50_000.0), "heads3": None, "mla-q": partly})
    assert lines(table, "heads3") == ["| `heads3` | not measured yet |" + " — |" * 8]
    assert lines(table, "mla-q") == ["| `mla-q` | 2,697,610 | 45.00 ± 0.15 |" + " — |" * 7]


def test_failures_plain_blocks_and_other_machines_are_told():
    failed = bench(50_000.0, device="NVIDIA H200")
    failed["rows"][3] = row(256, "fused", "recipe", None, error="out of memory", not_fused="width 48")
    table = choices_table({"paper": bench(50_000.0), "narrow": failed, "heads3": None})
    assert "| 45.00 ± 0.15 | out of memory | 135.00 ± 0.15 |" in lines(table, "narrow")[0]
    assert lines(table, "narrow")[0].count(" — ") == 2
    assert "Blocks not fused for `narrow`: width 48." in table
    ends = [line.rsplit(" | ", 1)[1] for line in table.splitlines() if line.startswith("| `")]
    assert ends == ["NVIDIA H100 80GB HBM3 |", "NVIDIA H200 |", "— |"]
