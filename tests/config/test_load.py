"""What a file that is right becomes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunella.config import (
    Config,
    ConfigFaults,
    Fault,
    Registry,
    from_mapping,
    load,
    parse,
    state_folder,
)
from prunella.core.model import ActionKind, Mode, ServiceId, SymptomKind
from prunella.core.policy import FleetPolicy, Policy

ConfigOf = Callable[[str], Config]

SHOP = "services: {shop: {platform: command, %s}}\n"
SHOP_ID = ServiceId("shop")

OF_A_SERVICE_ALONE = {
    "scale_min",
    "scale_max",
    "debt_ttl_s",
    "release_soak_s",
    "irreversible",
    "needs",
    "circuit_open_s",
    "circuit_step_s",
    "circuit_requests",
}

NUMBERS: list[tuple[str, str, object]] = [
    ("heal: observe", "mode", Mode.OBSERVE),
    ("heal: off", "mode", Mode.OFF),
    ("domain: eu", "domain", "eu"),
    ("grace: 1m30s", "grace_s", 90.0),
    ("thresholds: {response_time: 250ms}", "response_time_s", 0.25),
    ("thresholds: {degraded_error_rate: 1%}", "degraded_error_rate", 0.01),
    ("thresholds: {failed_error_rate: 0.5}", "failed_error_rate", 0.5),
    ("thresholds: {slo: 75%}", "slo", 0.75),
    ("verify: {soak: 5s}", "soak_s", 5.0),
    ("verify: {deadline: 1h}", "deadline_s", 3600.0),
    ("verify: {rollback_soak: 30s}", "rollback_soak_s", 30.0),
    ("guards: {fall: 1}", "fall", 1),
    ("guards: {rise: 5}", "rise", 5),
    ("guards: {min_samples: 50}", "min_samples", 50),
    ("guards: {budget: {actions: 0}}", "budget_actions", 0),
    ("guards: {budget: {window: 4h}}", "budget_window_s", 14400.0),
    ("guards: {backoff: {base: 2}}", "backoff_base_s", 2.0),
    ("guards: {backoff: {cap: 10m}}", "backoff_cap_s", 600.0),
    ("guards: {backoff: {half_life: 1h}}", "backoff_half_life_s", 3600.0),
    ("guards: {chain: {ineffective: 2}}", "ineffective_limit", 2),
    ("guards: {chain: {attempts: 9}}", "attempts_limit", 9),
    ("guards: {chain: {window: 1h}}", "chain_window_s", 3600.0),
    ("guards: {flapping: {recoveries: 1}}", "flapping_recoveries", 1),
    ("guards: {flapping: {window: 4h}}", "incident_window_s", 14400.0),
    ("cadence: {suspect: 200ms}", "suspect_interval_s", 0.2),
    ("cadence: {long_down: 5m}", "down_interval_s", 300.0),
    ("cadence: {long_down_after: 1h}", "long_down_s", 3600.0),
    ("guards: {min_healthy: 75 %}", "min_healthy_ratio", 0.75),
    (
        "ladder: {down: [restart, rollback], slow: []}",
        "ladder",
        {
            SymptomKind.DOWN: (ActionKind.RESTART, ActionKind.ROLLBACK),
            SymptomKind.SLOW: (),
        },
    ),
]


def test_the_least_file_has_the_defaults_of_the_policies(config_of: ConfigOf) -> None:
    config = config_of("services: {shop: {platform: command}}")
    shop = config.services[SHOP_ID]
    assert (shop.id, shop.name, shop.platform, shop.probes) == ("shop", "shop", "command", ())
    assert shop.policy == Policy()
    assert config.fleet == FleetPolicy()
    assert config.api == ("127.0.0.1", 7110)
    assert config.retention_s == 90 * 86400
    assert config.path == Path("/etc/prunella/p.yaml")


@pytest.mark.parametrize(("key", "field", "value"), NUMBERS)
def test_a_key_sets_its_number_for_a_service_and_as_a_default_and_no_other(
    key: str, field: str, value: object, config_of: ConfigOf
) -> None:
    assert getattr(Policy(), field) != value
    wanted = dataclasses.replace(Policy(), **{field: value})  # type: ignore[arg-type]
    own = config_of(SHOP % key)
    assert own.services[SHOP_ID].policy == wanted
    if field != "domain":
        inherited = config_of(SHOP % "name: x" + f"defaults: {{{key}}}")
        assert inherited.services[SHOP_ID].policy == wanted


def test_there_is_a_key_for_every_number_of_a_policy() -> None:
    settable = {field for _, field, _ in NUMBERS} | OF_A_SERVICE_ALONE
    assert settable == {field.name for field in dataclasses.fields(Policy)} - {"interval_s"}


def test_a_service_overrides_single_values_of_the_defaults(config_of: ConfigOf) -> None:
    config = config_of(
        "defaults: {guards: {fall: 7, budget: {actions: 9}}, ladder: {slow: [], hung: []}}\n"
        + SHOP % "guards: {budget: {window: 1h}, fall: 3}, ladder: {slow: [scale-up]}"
    )
    policy = config.services[SHOP_ID].policy
    assert (policy.fall, policy.budget_actions, policy.budget_window_s) == (3, 9, 3600.0)
    assert policy.ladder[SymptomKind.SLOW] == (ActionKind.SCALE_UP,)
    assert policy.ladder[SymptomKind.HUNG] == ()
    assert SymptomKind.DOWN not in policy.ladder


def test_what_is_to_be_scaled_says_between_which_numbers(config_of: ConfigOf) -> None:
    policy = config_of(SHOP % "scale: {min: 2, max: 4, ttl: 1m}").services[SHOP_ID].policy
    assert (policy.scale_min, policy.scale_max, policy.debt_ttl_s) == (2, 4, 60.0)
    least = config_of(SHOP % "scale: {max: 4}").services[SHOP_ID].policy
    assert least == dataclasses.replace(Policy(), scale_max=4)


@pytest.mark.parametrize("kind", ["", "kind: folder, cwd: ., "])
def test_a_release_has_its_soak_and_what_is_irreversible_whatever_its_kind(
    kind: str, config_of: ConfigOf
) -> None:
    shop = config_of(SHOP % f"release: {{{kind}soak: 1h, irreversible: [v2*]}}").services[SHOP_ID]
    assert (shop.policy.release_soak_s, shop.policy.irreversible) == (3600.0, ("v2*",))
    assert (shop.release_spec.soak, shop.release_spec.irreversible) == (3600.0, ("v2*",))


def test_a_release_has_the_spec_of_its_kind_with_paths_from_the_file(config_of: ConfigOf) -> None:
    shop = config_of(SHOP % "release: {kind: folder, cwd: ./r}").services[SHOP_ID]
    spec: Any = shop.release_spec
    assert (shop.release_kind, spec.cwd, spec.keep) == ("folder", Path("/etc/prunella/r"), 3)
    assert config_of(SHOP % "name: x").services[SHOP_ID].release_kind is None


def test_every_number_of_the_fleet_can_be_set(config_of: ConfigOf) -> None:
    storm = "storm: {share: 50%, services: 9, window: 1h}"
    fleet = f"fleet: {{pace: 1s, pace_above: 20%, burst: 4, {storm}}}\n"
    assert config_of(fleet + SHOP % "name: x").fleet == FleetPolicy(
        pace_s=1.0,
        pace_unwell_ratio=0.2,
        burst=4,
        storm_ratio=0.5,
        storm_services=9,
        storm_window_s=3600.0,
    )


def test_probes_keep_their_order_and_take_the_interval_of_the_defaults(
    config_of: ConfigOf,
) -> None:
    probes = "probes: [{kind: tcp, port: 2}, {kind: http, url: 'http://h/', interval: 1s}]"
    config = config_of("defaults: {interval: 7s}\n" + SHOP % probes)
    shop = config.services[SHOP_ID]
    assert [(probe.kind, probe.interval_s) for probe in shop.probes] == [("tcp", 7.0), ("http", 1)]
    assert shop.policy.interval_s == 1.0


def test_a_suspect_is_never_looked_at_less_often_nor_a_lost_one_more_often_than_usual(
    config_of: ConfigOf,
) -> None:
    cadence = (
        "cadence: {suspect: 500ms, long_down: 2h}, probes: [{kind: tcp, port: 1, interval: %s}]"
    )
    policies = {
        interval: config_of(SHOP % (cadence % interval)).services[SHOP_ID].policy
        for interval in ("100ms", "1h", "3h")
    }
    assert policies["100ms"].suspect_interval_s == 0.1
    assert policies["1h"].suspect_interval_s == 0.5
    assert policies["1h"].down_interval_s == 7200.0
    assert policies["3h"].down_interval_s == 10800.0


@pytest.mark.parametrize(
    ("defaults", "probe", "timeout_s"),
    [
        ("{}", "", 0.5),  # the plugin's own default
        ("{timeout: 9s}", "", 9.0),
        ("{timeout: 9s}", ", timeout: 1s", 1.0),
        ("{timeout: 9s}", ", timeout: 500ms", 0.5),
    ],
)
def test_a_timeout_is_the_probes_own_or_the_files_or_the_plugins(
    defaults: str, probe: str, timeout_s: float, config_of: ConfigOf
) -> None:
    config = config_of(
        f"defaults: {defaults}\n" + SHOP % f"probes: [{{kind: tcp, port: 1{probe}}}]"
    )
    assert config.services[SHOP_ID].probes[0].spec.timeout == timeout_s


def test_every_path_of_a_spec_starts_at_the_file_and_nothing_else_does(
    config_of: ConfigOf,
) -> None:
    config = config_of(
        "services: {shop: {platform: process, process: {command: [./a], cwd: .,"
        " env: {cwd: b}, files: [c, /d], mounts: {e: f}, layers: [{cwd: g}], limits: {cwd: ../x}},"
        " probes: [{kind: tcp, port: 1, cwd: /abs}, {kind: tcp, port: 2}]}}"
    )
    shop = config.services[SHOP_ID]
    spec: Any = shop.platform_spec
    probes: list[Any] = [probe.spec for probe in shop.probes]
    here = Path("/etc/prunella")
    assert (spec.command, spec.env) == (("./a",), {"cwd": "b"})
    assert spec.cwd == here
    assert spec.files == (here / "c", Path("/d"))
    assert spec.mounts == {"e": here / "f"}
    assert [layer.cwd for layer in spec.layers] == [here / "g"]
    assert spec.limits.cwd == here / "../x"
    assert [probe.cwd for probe in probes] == [Path("/abs"), None]


@pytest.mark.parametrize(
    ("top", "store", "state_dir"),
    [
        ("store: sqlite:///p.db", "sqlite:////etc/prunella/p.db", None),
        ("store: sqlite:////p.db", "sqlite:////p.db", None),
        ("store: sqlite://host/p.db", "sqlite://host/p.db", None),
        ("state_dir: ./s", "sqlite:////etc/prunella/s/prunella.db", "/etc/prunella/s"),
        ("state_dir: /s", "sqlite:////s/prunella.db", "/s"),
    ],
)
def test_the_store_and_the_state_folder_are_absolute(
    top: str, store: str, state_dir: str | None, config_of: ConfigOf
) -> None:
    config = config_of(f"{top}\n" + SHOP % "name: x")
    assert config.store == store
    assert config.state_dir == (state_folder() if state_dir is None else Path(state_dir))


@pytest.mark.parametrize(
    ("environ", "user", "folder"),
    [
        ({"PRUNELLA_STATE_DIR": "/here", "HOME": "/h"}, 0, "/here"),
        ({"HOME": "/root", "XDG_STATE_HOME": "/xdg"}, 0, "/var/lib/prunella"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/xdg"}, 1000, "/xdg/prunella"),
        ({"HOME": "/h", "XDG_STATE_HOME": "relative"}, 1000, "/h/.local/state/prunella"),
        ({"HOME": "/h"}, 1000, "/h/.local/state/prunella"),
        ({}, 1000, "/.local/state/prunella"),
    ],
)
def test_the_state_folder_is_the_platforms(environ: dict[str, str], user: int, folder: str) -> None:
    assert state_folder(environ, user) == Path(folder)


@pytest.mark.parametrize(
    ("api", "address"),
    [
        ("off", None),
        ("false", None),
        ("{}", ("127.0.0.1", 7110)),
        ("{listen: 127.0.0.1:0}", ("127.0.0.1", 0)),
        ("{listen: 'localhost:80'}", ("localhost", 80)),
        ("{listen: '[::1]:80'}", ("::1", 80)),
        ("{listen: 127.9.9.9:80}", ("127.9.9.9", 80)),
    ],
)
def test_the_api_listens_on_this_machine_or_not_at_all(
    api: str, address: tuple[str, int] | None, config_of: ConfigOf
) -> None:
    assert config_of(f"api: {api}\n" + SHOP % "name: x").api == address


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:80", "'[::]:80'", "10.0.0.1:80", "'*:80'", "localhost.evil.org:80", "':80'"]
)
def test_the_api_never_listens_for_other_machines(
    listen: str, faults_of: Callable[[str], list[str]]
) -> None:
    (line,) = faults_of(f"api: {{listen: {listen}}}\n" + SHOP % "name: x")
    assert line.startswith("p.yaml:1:15: ")


@pytest.mark.parametrize(
    ("api", "address"),
    [
        ("off", None),
        ("{}", None),
        ("{monitoring: 0.0.0.0:9110}", ("0.0.0.0", 9110)),
        ("{monitoring: '[::]:9110'}", ("::", 9110)),
        ("{monitoring: 10.0.0.1:0}", ("10.0.0.1", 0)),
    ],
)
def test_others_may_ask_how_we_are_only_where_they_are_let(
    api: str, address: tuple[str, int] | None, config_of: ConfigOf
) -> None:
    assert config_of(f"api: {api}\n" + SHOP % "name: x").monitoring == address


def test_a_frozen_configuration_cannot_be_changed(config_of: ConfigOf) -> None:
    config = config_of(SHOP % "name: x")
    with pytest.raises(TypeError):
        config.services[SHOP_ID] = config.services[SHOP_ID]  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.store = ""  # type: ignore[misc]


def test_services_keep_the_order_of_the_file(config_of: ConfigOf) -> None:
    names = ["zeta", "alpha", "8001", "a.b-c_d"]
    lines = "".join(f"  {name}: {{platform: command}}\n" for name in names)
    assert list(config_of(f"services:\n{lines}").services) == names


def test_a_file_and_a_mapping_of_the_same_shape_are_the_same(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "p.yaml"
    file.write_text("services: {shop: {platform: process, heal: off, process: {command: [a]}}}\n")
    shop = {"platform": "process", "heal": False, "process": {"command": ("a",)}}
    mapped = from_mapping({"services": {"shop": shop}}, registry)
    assert mapped.path is None
    assert load(file, registry) == dataclasses.replace(mapped, path=file)


def test_faults_of_a_mapping_name_the_dotted_path_in_order(registry: Registry) -> None:
    shop = {"platform": "process", "process": {"command": ["a", 1, None]}, "grace": "x", 3: 4}
    with pytest.raises(ConfigFaults) as caught:
        from_mapping({"services": {"shop": shop}, "stor": 1}, registry)
    assert [str(fault) for fault in caught.value.faults] == [
        "services.shop: the key 3 is not text, expected text",
        "services.shop.process.command[1]: item 2 of 'command' is 1, expected text: write \"1\"",
        "services.shop.process.command[2]: item 3 of 'command' is empty, expected text",
        "services.shop.grace: 'grace' is 'x', expected a duration such as 250ms, 5s, 10m or 1h30m",
        "stor: unknown key 'stor', did you mean 'store'?",
    ]


def test_a_mapping_that_contains_itself_is_refused(registry: Registry) -> None:
    data: dict[str, Any] = {}
    data["services"] = data
    with pytest.raises(ConfigFaults, match="nested deeper than 32 levels"):
        from_mapping(data, registry)


def test_a_file_that_is_not_there_is_a_fault(registry: Registry, tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    with pytest.raises(ConfigFaults) as caught:
        load(missing, registry)
    message = "cannot be read (No such file or directory), expected a YAML file"
    assert caught.value.faults == (Fault(str(missing), None, None, message),)


def test_a_folder_is_not_a_file(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigFaults, match="is not a regular file, expected a YAML file"):
        load(tmp_path, registry)


def test_a_name_that_no_file_can_have_is_a_fault(registry: Registry) -> None:
    with pytest.raises(ConfigFaults, match="cannot be read"):
        load(Path("a\0b"), registry)


def test_a_file_names_itself_as_it_was_asked_for(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text("services:\n")
    with pytest.raises(ConfigFaults, match=r"^p\.yaml:1:1: 'services' is empty"):
        load(Path("p.yaml"), registry)


def test_without_any_plugin_the_faults_say_so() -> None:
    with pytest.raises(ConfigFaults, match=r"unknown platform 'x', expected one of: \(there is"):
        parse("services: {shop: {platform: x}}", Path("p.yaml"), Registry({}, {}, {}))


PLACES = """\
services:
  plain:
    platform: process
    process: {command: [a]}
  bare: {platform: command}
  flow: {release: {soak: 1m}, platform: command}
"""


@pytest.mark.parametrize(
    ("service", "platform", "release"),
    [("plain", (4, 5), (4, 5)), ("bare", (5, 20), (5, 20)), ("flow", (6, 41), (6, 10))],
)
def test_what_is_found_out_later_can_be_said_at_its_place(
    config_of: ConfigOf, service: str, platform: tuple[int, int], release: tuple[int, int]
) -> None:
    places = config_of(PLACES).places[ServiceId(service)]
    assert (places.platform[:2], places.release[:2]) == (platform, release)


def test_a_service_that_was_only_moved_in_its_file_is_the_same(config_of: ConfigOf) -> None:
    assert config_of(PLACES) == config_of("\n" + PLACES)
