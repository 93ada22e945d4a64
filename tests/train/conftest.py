"""Compiled steps are shared between this folder's tests, most of whose time is compilation."""

import gc

import jax
import pytest

SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="session")
def compilation_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compilation_cache")


@pytest.fixture(scope="module", autouse=True)
def shared_compilation(compilation_cache):
    from jax.experimental.compilation_cache import compilation_cache as cache

    before = {name: getattr(jax.config, name) for name in SETTINGS}
    before["jax_compilation_cache_dir"] = jax.config.jax_compilation_cache_dir
    for name, value in SETTINGS.items():
        jax.config.update(name, value)
    jax.config.update("jax_compilation_cache_dir", str(compilation_cache))
    cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    cache.reset_cache()


@pytest.fixture
def collect_garbage():
    yield
    gc.collect()
