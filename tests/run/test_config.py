"""The configuration: bits by pattern, the folder's name, and its way through JSON."""

import dataclasses
import json
import pathlib
import typing

import pytest
import tiny

from qevo.errors import QevoError
from qevo.nets import ARCHITECTURES
from qevo.run import RefineConfig, TrainConfig
from qevo.run import folder as files


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (("*=ternary",), {"*": "ternary"}),
        (("4",), {"*": 4}),
        (("*=3", "dense_*=8", "logits=ternary"), {"*": 3, "dense_*": 8, "logits": "ternary"}),
        (("*=²", "a=-4", "b="), {"*": "²", "a": "-4", "b": ""}),  # refused later, by name
    ],
)
def test_bits_by_pattern(bits: tuple[str, ...], expected: dict[str, str | int]) -> None:
    assert TrainConfig(bits=bits).bits_by_pattern() == expected


def test_the_last_of_two_equal_patterns_counts() -> None:
    rules = TrainConfig(bits=("*=2", "logits=8", "*=4")).bits_by_pattern()
    assert list(rules.items()) == [("logits", 8), ("*", 4)]


def test_no_bits() -> None:
    with pytest.raises(QevoError, match=r"PATTERN=BITS"):
        TrainConfig(bits=()).bits_by_pattern()


def test_a_run_is_named_after_what_it_does() -> None:
    named = TrainConfig(data="pictures/birds/", architecture="lenet_5", seed=3)
    assert named.folder == pathlib.Path("runs/birds-lenet_5-3")
    assert TrainConfig(name="mine", runs=pathlib.Path("x")).folder == pathlib.Path("x/mine")


def test_every_architecture_is_a_choice() -> None:
    kind = typing.get_type_hints(TrainConfig)["architecture"]
    assert typing.get_args(kind) == tuple(ARCHITECTURES)


def test_reads_back_what_was_written(tmp_path: pathlib.Path) -> None:
    config = tiny.config("mnist", tmp_path, teacher=pathlib.Path("t.npz"), max_seconds=1.5)
    files.write_json(tmp_path / files.CONFIG, files.config_values(config) | {"data_sha256": "0"})
    assert files.read_config(tmp_path) == config


def test_reads_back_a_refinement(tmp_path: pathlib.Path) -> None:
    start = RefineConfig()
    search = dataclasses.replace(start.weights.search, stages=((16, 100), (4, 420)))
    config = dataclasses.replace(start, weights=dataclasses.replace(start.weights, search=search))
    files.write_json(tmp_path / files.CONFIG, files.config_values(config))
    assert files.read_config(tmp_path) == config


def test_a_name_of_many_exceptions_is_a_file_name() -> None:
    def named(last: int) -> str:
        rules = [f"block_{i // 4}_{i % 4}/conv_0=3" for i in range(18)]
        bits = ("*=4", *rules, f"logits={last}")
        return RefineConfig(network="net.py:Net", bits=bits, seed=5).folder.name

    assert len(named(8)) < 200
    assert named(8).startswith("Net-4-block_0_0_conv_0=3")
    assert named(8).endswith("-5")
    assert named(8) != named(6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("\xff", "is no JSON"),
        ("[1]", "no JSON object, but a list"),
        (json.dumps({"colour": "red"}), r"not the configuration of this version.*colour"),
        (json.dumps({"training": 3}), "not the configuration of this version"),
    ],
)
def test_what_is_no_configuration(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / files.CONFIG).write_text(text, encoding="latin-1")
    with pytest.raises(QevoError, match=message):
        files.read_config(tmp_path)


def test_no_run_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(QevoError, match=r"is .* a run folder"):
            files.read_config(path)
