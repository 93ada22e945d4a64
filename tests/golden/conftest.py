"""Golden tests that are too slow for every run take part where a golden directory is named."""


def pytest_collection_modifyitems(config, items):
    if config.getoption("--golden") is not None:
        return
    slow = [item for item in items if item.get_closest_marker("golden_full")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]
