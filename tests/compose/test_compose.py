"""The whole, in containers: what a user of docker-compose.yml does to it, and what may befall it.

`make compose-test` runs it, where a Docker engine answers; it is no part of `make test`. The values
are known exactly, so that every answer can be judged. Nothing is judged by its speed, but every
wait has an end.
"""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.compose.system import (
    EPSILON,
    FROM_INSIDE,
    HEALTHY_S_MAX,
    PROJECT,
    SILENT_S,
    SLACK_S,
    System,
    Values,
    docker,
    say,
    until,
)

GRACE_S = 15
BATCH = 500
BODY_BYTES_MAX = 2**22

# Prints what is there of the tools that build, and what may be written to.
WHAT_IS_THERE = """
import importlib.util, os, shutil
print(os.getuid() != 0 and os.getgid() != 0)
print([tool for tool in ("gcc", "cc", "make", "pip", "git") if shutil.which(tool)])
print([name for name in ("pip", "setuptools", "pytest", "tests") if importlib.util.find_spec(name)])
print([path for path in (".", "/", "/venv") if os.access(path, os.W_OK)])
"""

# Kills the service, which is the only child of process 1.
CRASH = """
import os, pathlib
os.kill(int(pathlib.Path("/proc/1/task/1/children").read_text()), 9)
"""


def island(rng: np.random.Generator, worker: int, count: int = BATCH) -> Values:
    """Values that tell workers apart: what one of them has, no other has nearby."""
    return rng.normal(10.0 * worker, 1.0, count)


def give_everyone(system: System, rng: np.random.Generator, times: int = 2) -> None:
    for _ in range(times):
        for number, worker in enumerate(system.workers()):
            system.give(worker, island(rng, number))


@pytest.mark.parametrize("service", ["worker", "coordinator"])
@pytest.mark.usefixtures("images")
def test_the_image_has_what_runs_and_nothing_to_build_with(service: str) -> None:
    words = ["run", "--rm", "--network", "none", f"{PROJECT}-{service}"]
    seen = docker(*words, "python", "-c", WHAT_IS_THERE)
    say(f"-- image of {service}: {docker('images', '--format', '{{.Size}}', words[-1])}")
    assert seen.splitlines() == ["True", "[]", "[]", "[]"]
    assert docker(*words, "python", "-c", f"import {service}_service") == ""


def test_the_page_and_its_files_are_in_the_image(system: System) -> None:
    for path, type_ in (("", "text/html"), ("dashboard/main.js", "text/javascript")):
        found = httpx.get(f"{system.coordinator_url}/{path}", timeout=5, trust_env=False)
        assert (found.status_code, found.headers["content-type"].split(";")[0]) == (200, type_)


def test_what_runs_is_limited_and_reached_from_this_machine_only(system: System) -> None:
    for container in system.containers():
        host = system.inspect(container, ".HostConfig")
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert host["Init"]
        assert 0 < host["Memory"] <= 2**29
        assert 0 < host["PidsLimit"] <= 128
        assert 0 < host["NanoCpus"] <= 1e9
        assert not system.inspect(container, ".Config.User").startswith(("0", "root"))
        published = [one for ports in host["PortBindings"].values() for one in ports]
        assert [one["HostIp"] for one in published] == ["127.0.0.1"]
        used = docker(
            "stats", "--no-stream", "--format", "{{.MemUsage}}, {{.PIDs}} pids", container
        )
        say(f"{system.inspect(container, '.Name')}: {used}")


def test_all_is_healthy_within_ten_seconds_of_its_start(system: System) -> None:
    system.compose("stop")
    system.start(within_s=10)


def test_a_coordinator_is_healthy_at_once_and_ready_after_three_heartbeats(system: System) -> None:
    docker("restart", system.coordinator())

    def statuses() -> list[int]:
        urls = [f"{system.coordinator_url}/{path}" for path in ("health", "ready")]
        return [httpx.get(url, timeout=5, trust_env=False).status_code for url in urls]

    until(lambda seen: seen == [200, 503], statuses, within_s=SILENT_S, what="healthy, not ready")
    assert not system.answer()["complete"]
    until(lambda seen: seen == [200, 200], statuses, within_s=SILENT_S + SLACK_S, what="ready")
    assert system.answer()["complete"]


def test_what_each_replica_was_given_is_in_the_answer(
    system: System, rng: np.random.Generator
) -> None:
    assert system.answer() | {"as_of": ""} == {
        "stream": "default", "median": None, "low": None, "high": None, "count": 0,
        "epsilon": EPSILON, "rank_error": 0, "exact": True, "complete": True,
        "workers": {"live": 0, "silent": 0}, "as_of": "",
    }  # fmt: skip
    give_everyone(system, rng, times=1)
    system.until_complete(live=3, what="three live", within_s=SLACK_S)
    for _ in range(10):
        give_everyone(system, rng, times=1)
        system.check_promise()  # before anything was flushed: it holds at any moment
    system.flush()
    system.check_counted()


def test_eight_of_the_largest_bodies_at_once_fit_into_a_worker(system: System) -> None:
    worker, ones = system.workers()[0], np.ones(2**21 - 1)
    largest = f"[{','.join('1' * len(ones))}]\n".encode()
    assert len(largest) == BODY_BYTES_MAX

    def statuses(body: bytes) -> list[int]:
        kind, url = {"content-type": "application/json"}, f"{system.url(worker)}/values"
        with ThreadPoolExecutor(8) as pool:
            asked = [
                pool.submit(
                    httpx.post, url, content=body, headers=kind, timeout=60, trust_env=False
                )
                for _ in range(8)
            ]
            return [one.result().status_code for one in asked]

    assert statuses(largest) == [202] * 8
    system.acknowledged += [ones] * 8
    assert statuses(largest + b" ") == [413] * 8
    system.until(counted=True, within_s=SLACK_S, what="all counted")
    assert system.inspect(worker, ".RestartCount") == 0
    say(docker("stats", "--no-stream", "--format", "{{.MemUsage}}", worker))


def test_the_load_generator_loads_every_replica_and_checks_every_answer(system: System) -> None:
    facts = json.loads(
        system.loadgen("replay", "two_islands", "--values", "3e5", "--verify", "--json")
    )
    assert facts["workers"] == 3
    assert facts["values"]["counted"] == 300_000
    assert facts["promise"]["violations"] == 0
    assert facts["promise"]["checked"] > 1
    each = [row["count"] for row in system.get("/workers")["workers"]]
    assert each == [100_000] * 3
    say(f"{facts['values']['a_second']:,.0f} values/s, {facts['traffic']['share']:.2%} said")


def test_the_load_generator_replays_a_file_that_is_mounted(
    system: System, rng: np.random.Generator, tmp_path: Path
) -> None:
    values = island(rng, 0, 5_000)
    table = tmp_path / "times.csv"
    table.write_text("\n".join(["host,seconds", *(f"a,{one!r}" for one in values.tolist())]))
    table.chmod(0o644)
    system.loadgen("replay", "/times.csv", "--column", "seconds", mounted=[f"{table}:/times.csv"])
    system.acknowledged.append(values)
    system.check_counted()


def test_scaled_to_eight_and_back_every_value_stays_counted(
    system: System, rng: np.random.Generator
) -> None:
    give_everyone(system, rng)
    system.start(workers=8)
    give_everyone(system, rng)
    system.until_complete(live=8, what="eight live", within_s=SLACK_S)
    system.check_promise()
    system.start(workers=3)
    system.until_complete(live=3, what="three live, none silent", within_s=SLACK_S)
    system.check_counted()
    give_everyone(system, rng)
    system.check_promise()
    system.flush()
    system.check_counted()


def test_a_killed_worker_is_silent_until_it_is_retired(
    system: System, rng: np.random.Generator
) -> None:
    give_everyone(system, rng)
    system.flush()
    system.check_counted()
    victim, sources = system.workers()[1], system.sources()
    name = system.name(victim)
    docker("kill", victim)
    system.until(
        complete=False,
        workers={"live": 2, "silent": 1},
        within_s=SILENT_S + SLACK_S,
        what="the killed one silent",
    )
    system.post(f"{system.coordinator_url}/workers/{name}/retire").raise_for_status()
    system.until_complete(live=2, what="complete without it", within_s=SLACK_S)
    system.check_counted()  # its values stay

    docker("start", victim)
    system.until_healthy()
    give_everyone(system, rng)
    system.until_complete(live=3, what="complete with it, which goes on", within_s=SLACK_S)
    system.flush()
    system.check_counted()
    assert system.sources() == sources


def test_a_worker_that_crashes_goes_on_as_the_source_it_was(
    system: System, rng: np.random.Generator
) -> None:
    give_everyone(system, rng)
    victim, sources = system.workers()[0], system.sources()
    docker("exec", "--detach", victim, "python", "-c", CRASH)
    until(
        lambda times: times == 1,
        lambda: system.inspect(victim, ".RestartCount"),
        within_s=SLACK_S,
        what="started again",
    )
    system.until_healthy()
    system.until_complete(live=3, what="complete with what it was", within_s=SLACK_S)
    system.flush()
    system.check_counted()
    give_everyone(system, rng)
    system.flush()
    system.check_counted()
    assert system.sources() == sources


def test_all_killed_at_once_go_on_where_they_were(system: System, rng: np.random.Generator) -> None:
    give_everyone(system, rng)
    sources = system.sources()
    docker("kill", *system.containers())
    docker("start", *system.containers())
    system.until_healthy()
    system.until_complete(live=3, what="complete again")
    system.flush()
    system.check_counted()
    give_everyone(system, rng)
    system.flush()
    system.check_counted()
    assert system.sources() == sources


def test_containers_that_are_removed_leave_what_they_kept_to_the_next(
    system: System, rng: np.random.Generator
) -> None:
    give_everyone(system, rng)
    sources = system.sources()
    system.compose("down")
    system.start()
    system.until_complete(live=3, what="complete again")
    system.check_counted()
    give_everyone(system, rng)
    system.flush()
    system.check_counted()
    assert system.sources() == sources


def test_a_worker_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(
    system: System, rng: np.random.Generator
) -> None:
    give_everyone(system, rng)
    disk = ["--tmpfs", "/data:size=1m,uid=10001", "--network", f"{PROJECT}_default"]
    given = {"COORDINATOR_URL": "http://coordinator:8000", "DATA_DIR": "/data", "WORKER_NAME": "f"}
    words = [word for name, value in given.items() for word in ("--env", f"MEDIAN_{name}={value}")]
    full = docker("run", "--rm", "--detach", *disk, *words, f"{PROJECT}-worker")
    try:
        batch = island(rng, 3)
        ask = ["exec", "--interactive", full, "python", "-c", FROM_INSIDE]

        def statuses(times: int) -> list[str]:
            return docker(*ask, given=json.dumps([batch.tolist()] * times)).split()

        until(
            lambda health: health == "healthy",
            lambda: system.inspect(full, ".State.Health.Status"),
            within_s=HEALTHY_S_MAX,
            what="up",
        )
        assert statuses(1) == ["202"]
        docker("exec", full, "sh", "-c", "cat /dev/zero > /data/zeros || true")
        seen = statuses(100)
        assert "507" in seen
        assert set(seen) <= {"202", "507"}  # it may find room in its own file, now and then
        docker("exec", full, "rm", "/data/zeros")
        assert statuses(3) == ["202"] * 3
        system.acknowledged += [batch] * (1 + seen.count("202") + 3)
        docker("stop", full)
        system.check_counted()
    finally:
        docker("rm", "--force", full)


def test_a_paused_worker_is_silent_and_what_waited_for_it_is_counted_once(
    system: System, rng: np.random.Generator
) -> None:
    give_everyone(system, rng)
    victim = system.workers()[2]
    docker("pause", victim)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(system.give, victim, island(rng, 2))
        system.until(
            complete=False,
            workers={"live": 2, "silent": 1},
            within_s=SILENT_S + SLACK_S,
            what="the paused one silent",
        )
        docker("unpause", victim)
        waiting.result(timeout=60)
    system.until_complete(live=3, what="complete after waking")
    give_everyone(system, rng)
    system.check_promise()
    system.flush()
    system.check_counted()


def test_what_a_worker_without_network_acknowledged_is_counted_exactly_once(
    system: System, rng: np.random.Generator
) -> None:
    give_everyone(system, rng)
    victim, network = system.workers()[0], f"{PROJECT}_default"
    docker("network", "disconnect", network, victim)
    # The first of them wait until the coordinator must have missed this worker; then it goes on.
    system.give_from_inside(victim, [island(rng, 7, 50) for _ in range(20)])
    system.until(
        complete=False,
        workers={"live": 2, "silent": 1},
        within_s=SILENT_S + SLACK_S,
        what="the one without network silent",
    )
    with ThreadPoolExecutor() as pool:
        during = [island(rng, 7, 50) for _ in range(30)]
        posting = pool.submit(system.give_from_inside, victim, during)
        time.sleep(1)
        docker("network", "connect", "--alias", "worker", network, victim)
        posting.result(timeout=120)
    system.until_complete(live=3, what="complete with the network back")
    system.check_counted()
    give_everyone(system, rng)
    system.flush()
    system.check_counted()


def test_a_restarted_coordinator_is_incomplete_until_it_has_heard_from_everyone(
    system: System, rng: np.random.Generator
) -> None:
    give_everyone(system, rng)
    system.flush()
    system.check_counted()
    docker("kill", system.coordinator())
    docker("start", system.coordinator())
    system.until(complete=False, within_s=SLACK_S, what="answers again, incomplete")
    give_everyone(system, rng)
    system.until_complete(live=3, what="complete again")
    system.check(system.answer())
    system.flush()
    system.until(within_s=SLACK_S, counted=True, what="everything is counted again")
    system.check(system.answer())


def test_a_worker_that_is_stopped_leaves_nothing_acknowledged_behind(
    system: System, rng: np.random.Generator
) -> None:
    give_everyone(system, rng)
    victim = system.workers()[1]
    stopping = threading.Event()

    def go_on_giving() -> int:
        """Until refused; how many values got no answer."""
        while True:
            try:
                system.give(victim, island(rng, 1, 20))
            except (httpx.TransportError, AssertionError):
                assert stopping.is_set()
                return 20

    with ThreadPoolExecutor() as pool:
        giving = pool.submit(go_on_giving)
        time.sleep(1)
        stopping.set()
        took_s, code = system.stop(victim)
        unsure = giving.result(timeout=60)
    assert code in {0, 143}
    assert took_s < GRACE_S
    system.until_complete(live=2, what="complete without it", within_s=SLACK_S)
    known = len(system.everything())
    until(
        lambda count: known <= count <= known + unsure,
        lambda: int(system.answer()["count"]),
        within_s=SLACK_S,
        what=f"all {known:,} counted, and at most {unsure} more",
    )


def test_a_worker_that_nobody_hears_stops_in_time(system: System, rng: np.random.Generator) -> None:
    give_everyone(system, rng)
    system.stop(system.coordinator())
    took_s, code = system.stop(system.workers()[0])
    assert code in {0, 143}
    assert took_s < GRACE_S


def test_all_is_stopped_in_an_order_in_which_every_worker_is_heard(
    system: System, rng: np.random.Generator
) -> None:
    give_everyone(system, rng)
    system.compose("stop")
    ends = {one: system.inspect(one, ".State.FinishedAt") for one in system.containers()}
    codes = {system.inspect(one, ".State.ExitCode") for one in system.containers()}
    assert codes <= {0, 143}
    assert max(ends, key=lambda one: ends[one]) == system.coordinator()
