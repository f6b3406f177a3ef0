"""The C file gives the network's integers, and says truly what it takes."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from export_networks import NETWORKS

from qevo.errors import QevoError
from qevo.export import c_source, run_c
from qevo.nets import QuantizedNetwork

compiles = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
SANITIZED = ("-O1", "-std=c99", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")


@compiles
def test_the_same_integers(network: QuantizedNetwork, images: np.ndarray) -> None:
    found = run_c(c_source(network).text, images, network.output_shape)
    assert found is not None
    np.testing.assert_array_equal(found.values, network(images))


@compiles
@pytest.mark.parametrize("name", ["dense", "padded", "image"])
def test_no_undefined_behaviour(name: str, tmp_path: pathlib.Path) -> None:
    network = NETWORKS[name]()
    path, program = tmp_path / "network.c", tmp_path / "network"
    path.write_text(c_source(network).text)
    command = ["cc", *SANITIZED, "-DQEVO_MAIN", str(path), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode and "asan" in built.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    image = np.full((1, *network.image_shape), 255, np.uint8)
    done = subprocess.run([program], input=image.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = network(image).reshape(-1)
    np.testing.assert_array_equal(np.array(done.stdout.split(), np.int32), expected)


def test_it_takes_what_it_says(network: QuantizedNetwork) -> None:
    source = c_source(network)
    width = {"int8_t": 1, "uint8_t": 1, "int32_t": 4}
    declared = re.findall(
        r"static const (u?int\d+_t) \w+\[(\d+)\] = \{\n(.*?)\n\};", source.text, re.S
    )
    assert source.flash == sum(width[kind] * int(size) for kind, size, _ in declared)
    for _, size, body in declared:
        assert len(body.replace("\n", "").strip(",").split(",")) == int(size)
    assert f"static int8_t qevo_memory[{source.ram}];" in source.text


def test_only_what_is_called_is_there(network: QuantizedNetwork) -> None:
    text = c_source(network).text
    names = re.findall(r"^static \w+ (qevo_\w+)\(", text, re.M)
    assert len(names) == len(set(names))
    for name in set(names) - {"qevo_run"}:
        assert text.count(f"{name}(") > 1, name


def test_what_does_not_compile_is_said() -> None:
    if shutil.which("cc") is None:
        assert run_c("int main(", np.zeros((1, 1), np.uint8), (1,)) is None
        return
    with pytest.raises(QevoError, match="does not compile"):
        run_c("int main(", np.zeros((1, 1), np.uint8), (1,))
