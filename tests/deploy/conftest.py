from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.real.charts import Charts
from tests.real.engine import Engine
from tests.real.python_image import make_base

ROOT = Path(__file__).parents[2]
BASE, TAG = "prunella-base:test", "prunella:0.1.0"  # the latter is what the manifests name


@pytest.fixture(scope="session")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Charts:
    return Charts(tmp_path_factory.mktemp("charts"))


@pytest.fixture(scope="package")
def image(engine: Engine) -> Iterator[Engine]:
    """The engine that has Prunella's image."""
    make_base(engine, BASE)
    engine.docker(
        *("build", "--network", "host", "--build-arg", f"BASE={BASE}"),
        *("--build-arg", "REVISION=abc", "--file", str(ROOT / "deploy" / "Dockerfile")),
        *("--tag", TAG, str(ROOT)),
    )
    yield engine
    engine.clean()
