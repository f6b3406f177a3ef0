"""What all tests share: a compilation cache, and a finished run.

Leaves out the tests on full data sets where QEVO_DATA_DIR does not say where they are.
"""

import gc
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import hypothesis
import pytest

sys.path.insert(0, os.path.dirname(__file__))  # where `support` and its like are

# The first example of a property compiles, which no deadline allows for.
hypothesis.settings.register_profile(
    "qevo", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("qevo")


# Most programs run once: these flags compile in a third of the time, to slower ones.
_COMPILE_FAST = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)


def pytest_configure(config: pytest.Config) -> None:
    """Compile fast, and a program once, also across the processes that some tests start.

    A run that asks for slow tests, or for those of an accelerator, compiles as users do.
    """
    if "not slow" in config.option.markexpr and "XLA_FLAGS" not in os.environ:
        os.environ["XLA_FLAGS"] = _COMPILE_FAST if _accepted(_COMPILE_FAST) else ""
    cache = getattr(config, "cache", None)
    if cache is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache.mkdir("jax")))
        os.environ["XDG_CACHE_HOME"] = str(cache.mkdir("home"))  # plans; not the user's own
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _accepted(flags: str) -> bool:
    """Whether this XLA knows the flags; one that does not ends the process."""
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    return not subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")  # the longest ones first
    if os.environ.get("QEVO_DATA_DIR"):
        return
    left_out = [item for item in items if item.get_closest_marker("data")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("data")]


def pytest_collection_finish() -> None:
    """The garbage collector need not look at what was imported again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> Iterator[None]:
    """Few programs are run in two files; all of them together take gigabytes and time."""
    yield
    import jax

    jax.clear_caches()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of one small finished run, for tests that only look at it."""
    import tiny

    return tiny.run(tmp_path_factory.mktemp("finished"))
