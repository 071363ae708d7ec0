"""A daemon that starts in a moment: a fork of a process that has imported everything already."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prunella.testing.site import Launcher, Site

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src"
PLUGINS = """
[prunella.platforms]
process = prunella.testing.crash:PLATFORM
remarking = prunella.testing.remarking:PLATFORM
mute = prunella.testing.remarking:MUTE
[prunella.stores]
sqlite = prunella.testing.crash:STORE
"""


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    installed = tmp_path_factory.mktemp("installed")
    plugin = installed / "crash-1.0.dist-info"
    plugin.mkdir()
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: crash\nVersion: 1.0\n")
    (plugin / "entry_points.txt").write_text(PLUGINS)
    command = [sys.executable, str(HERE / "fork_server.py")]
    with Launcher(command, {"PYTHONPATH": f"{SOURCES}:{installed}"}) as started:
        yield started


@pytest.fixture
def sites(launcher: Launcher) -> Iterator[Callable[[Path], Site]]:
    made: list[Site] = []

    def make(folder: Path) -> Site:
        folder.mkdir(exist_ok=True)
        made.append(Site(folder, launcher, HERE / "target.py", sys.executable))
        made[-1].write()
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(sites: Callable[[Path], Site], tmp_path: Path) -> Site:
    return sites(tmp_path)
