from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llamafarm.errors import HardwareError
from llamafarm.hardware.choose import choose_device, choose_threads, device_name
from llamafarm.hardware.facts import GIB, Hardware
from llamafarm.strategy.model import Origin
from tests.hardware.recorded import A10, ALL, LAPTOP, M2_16GB, T4, make_cuda

LINE_6 = Origin(kind="strategy", file=Path("s.yaml"), line=6, strategy_id="scenario_2")


@pytest.mark.parametrize("name", ALL)
def test_auto_takes_the_best_device_there_is(name: str) -> None:
    device, decision = choose_device("auto", ALL[name])
    assert device == ALL[name].devices()[0]
    assert decision.source == "detected"


def test_the_reason_names_the_device_and_its_memory() -> None:
    _, decision = choose_device("auto", A10)
    assert decision.value == "cuda:0"
    assert decision.reason == "NVIDIA A10, 22.5 GiB free of 23.7 GiB"


def test_the_cpu_can_be_asked_for_beside_a_gpu() -> None:
    device, decision = choose_device("cpu", A10, LINE_6)
    assert device == "cpu"
    assert decision.source == "strategy"
    assert decision.reason.startswith("scenario_2, line 6: Intel(R) Xeon(R)")


def test_cuda_without_a_number_is_the_one_with_the_most_free_memory() -> None:
    two = Hardware(
        A10.cpu, (make_cuda("A", 24, 3, (8, 6), index=0), make_cuda("B", 24, 20, (8, 6), index=1))
    )
    assert choose_device("cuda", two)[0] == "cuda:1"
    assert choose_device("auto", two)[0] == "cuda:1"
    assert choose_device("cuda:0", two)[0] == "cuda:0"
    assert choose_device("auto", two)[1].reason.endswith("the most of 2")


@pytest.mark.parametrize(
    ("request_", "hardware", "instead"),
    [
        ("cuda", LAPTOP, "cpu"),
        ("mps", A10, "cuda:0"),
        ("cuda:7", A10, "cuda:0"),
        ("cuda", M2_16GB, "mps"),
    ],
)
def test_an_absent_device_is_refused_with_what_there_is(
    request_: str, hardware: Hardware, instead: str
) -> None:
    with pytest.raises(HardwareError) as caught:
        choose_device(request_, hardware, LINE_6)
    (problem,) = caught.value.problems
    assert caught.value.exit_code == 2
    assert problem.where == "s.yaml:6"
    assert all(name in problem.message for name in hardware.devices())
    assert f"`--set hardware.device={instead}`" in problem.hint
    assert "`device: auto`" in problem.hint


def test_a_flag_that_asks_for_an_absent_device_is_named_as_typed() -> None:
    flag = Origin(kind="flag", text="--set hardware.device=cuda")
    with pytest.raises(HardwareError) as caught:
        choose_device("cuda", LAPTOP, flag)
    assert caught.value.problems[0].where == "--set hardware.device=cuda"


@pytest.mark.parametrize(
    ("usable", "physical", "threads"), [(8, 4, 4), (2, 8, 2), (1, 1, 1), (6, None, 6)]
)
def test_there_is_one_thread_for_each_usable_physical_core(
    usable: int, physical: int | None, threads: int
) -> None:
    cpu = replace(LAPTOP.cpu, usable_cores=usable, physical_cores=physical)
    assert choose_threads(Hardware(cpu))[0] == threads


def test_the_reason_for_the_threads_is_the_limit_that_set_them() -> None:
    cpu = replace(LAPTOP.cpu, usable_cores=1, cores_reason="cgroup quota of 1.5 CPUs")
    assert "cgroup quota of 1.5 CPUs" in choose_threads(Hardware(cpu))[1].reason


def test_a_device_has_the_name_of_its_product() -> None:
    assert device_name("cuda:0", T4) == "Tesla T4"
    assert device_name("cpu", T4) == T4.cpu.name
    assert T4.accelerators[0].memory_total_bytes > 14 * GIB
