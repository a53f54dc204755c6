"""A real Ray: local workers, a cluster of two nodes one of which dies, a driver that dies."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import running
from ray_cluster import cluster, free_address, kill_node, processes_of, workers_of

from elicitor.config import build_config
from elicitor.control import request, state_of
from elicitor.errors import ConfigError
from elicitor.labelling import run

pytest.importorskip("ray", reason="ray is not installed")


def write_texts(folder, n):
    rows = [{"id": f"e{i}", "text": f"The {i}th thing was {'good' if i % 3 else 'bad'}."} for i in range(n)]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "x.jsonl")


OPTIONS = ("--search", "bootstrap", "--batch-size", "8")


def command(source, output, *more, model="fake"):
    words = ["label", source, "--task", "sentiment", "--model", model, "--output-dir", str(output), *OPTIONS, *more]
    return [sys.executable, "-m", "elicitor", *words]


def in_one_process(source, output, *, model="fake"):
    flags = {"data": source, "task": "sentiment", "model": model, "search": "bootstrap", "batch_size": 8}
    return run(build_config(flags=flags), output)


def finished(output):
    """Batches that count as done."""
    file = output / "checkpoint.json"
    ranges = json.loads(file.read_text())["done"] if file.exists() else []
    return sum(last - first + 1 for first, last in ranges)


def same_results(left, right):
    metrics = [json.loads((path / "metrics.json").read_text()) for path in (left, right)]
    for one in metrics:
        one["cost"].pop("seconds")
    return metrics[0] == metrics[1] and (left / "labels.jsonl").read_bytes() == (right / "labels.jsonl").read_bytes()


def wait_for(what, *, process=None, seconds=180):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_lost_node_loses_nothing(tmp_path):
    source = write_texts(tmp_path, 160)
    whole, output = tmp_path / "whole", tmp_path / "out"
    in_one_process(source, whole)
    with cluster(tmp_path) as joined:
        start = command(source, output, "--ray", joined.address, "--ray-workers", "2", model="fake:delay=0.3")
        with running(
            start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=joined.environment
        ) as driver:
            wait_for(lambda: finished(output) >= 2, process=driver)
            lost = joined.nodes[1]
            assert any("raylet" in Path(f"/proc/{pid}/cmdline").read_text() for pid in processes_of(lost))
            assert workers_of(lost)
            kill_node(lost)
            assert finished(output) < 20
            _, err = driver.communicate(timeout=300)
        assert driver.returncode == 0, err
    assert same_results(output, whole)
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_killed_driver_goes_on_with_what_is_finished(tmp_path):
    source = write_texts(tmp_path, 160)
    whole, output = tmp_path / "whole", tmp_path / "out"
    in_one_process(source, whole)
    start = command(source, output, "--ray", "local", "--ray-workers", "2", "--resume", model="fake:delay=0.3")
    with running(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as driver:
        wait_for(lambda: finished(output) >= 3, process=driver)
        driver.kill()
        driver.communicate()
    kept = finished(output)
    assert 3 <= kept < 20
    again = subprocess.run(start, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert same_results(output, whole)


@pytest.mark.slow
def test_a_driver_is_paused_and_stopped_between_batches(tmp_path):
    source = write_texts(tmp_path, 160)
    whole, output = tmp_path / "whole", tmp_path / "out"
    in_one_process(source, whole)
    start = command(source, output, "--ray", "local", "--ray-workers", "2", "--resume", model="fake:delay=0.3")
    with running(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as driver:
        wait_for(lambda: finished(output) >= 2, process=driver)
        request(output, "pause")
        wait_for(lambda: state_of(output) == "paused", process=driver)
        kept = finished(output)
        time.sleep(2)
        assert finished(output) == kept
        request(output, "resume")
        wait_for(lambda: finished(output) > kept, process=driver)
        request(output, "stop")
        _, err = driver.communicate(timeout=300)
    assert driver.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("--resume goes on from where it was\n")
    assert kept < finished(output) < 20
    again = subprocess.run(start, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert same_results(output, whole)


@pytest.mark.slow
def test_mistakes_are_one_line(tmp_path):
    source = write_texts(tmp_path, 20)
    with cluster(tmp_path, nodes=1) as joined:
        for more, model, said in (
            (("--ray-gpus", "1"), "fake", "no node of the cluster has 1 CPU and 1 GPU for a worker"),
            ((), str(tmp_path / "nowhere"), "has no known form"),
            ((), "fake:context=40", "needs 1"),
        ):
            done = subprocess.run(
                command(source, tmp_path / "out", "--ray", joined.address, *more, model=model),
                capture_output=True,
                text=True,
                timeout=180,
                env=joined.environment,
            )
            assert done.returncode == 2, done.stderr
            assert said in done.stderr.splitlines()[-1]
            assert done.stderr.splitlines()[-1].startswith("error: ")
            assert "Traceback" not in done.stderr
            assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_no_more_workers_load_the_model_than_there_is_work_for(tmp_path):
    source = write_texts(tmp_path, 24)
    with cluster(tmp_path, nodes=1, cpus=5) as joined:
        for name, more, wanted in (("few", (), 3), ("one", ("--limit", "8"), 1), ("asked", ("--ray-workers", "2"), 2)):
            start = command(source, tmp_path / name, "--ray", joined.address, *more, model="fake:delay=0.1")
            with running(
                start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=joined.environment
            ) as driver:
                seen = set()
                while driver.poll() is None:
                    seen.add(len(workers_of(joined.nodes[0])))
                    time.sleep(0.05)
                _, err = driver.communicate()
            assert driver.returncode == 0, err
            # On a busy machine all work may be done before the last of them has come.
            assert 1 <= max(seen) <= wanted


@pytest.mark.slow
def test_work_that_was_not_foreseen_gets_workers_of_its_own(tmp_path):
    """Each piece waits for three processes: one worker alone would wait for ever."""
    code = "import test_distributed as t, sys; t.three_at_once(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) == 3


def three_at_once(folder):
    from elicitor.distributed import RayOptions, WorkerPool

    with WorkerPool(RayOptions("local", cpus=0.1)) as pool:
        pool.load(build_config(flags={"data": "x", "task": "sentiment", "model": "fake"}), pieces=1)
        print(*pool.map(meet, [folder] * 3, name=str))


def meet(backend, folder):
    Path(folder, f"{os.getpid()}").touch()
    end = time.monotonic() + 120
    while len(list(Path(folder).iterdir())) < 3:
        assert time.monotonic() < end, "the others never came"
        time.sleep(0.05)
    return os.getpid()


@pytest.mark.slow
def test_a_suite_gives_the_same_tables_on_workers(tmp_path):
    rows = [
        {"id": f"e{i}", "text": f"The {i}th thing.", "label": "positive" if i * 7 % 11 > 4 else "negative"}
        for i in range(30)
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = {
        "model": "fake:noise=1",
        "conditions": ["zero_shot", "zero_shot_chat", "random", "bootstrap", "found", "golden"],
        "seeds": [0, 1],
        "limit": 10,
        "tasks": [{"name": name, "task": "sentiment", "data": str(tmp_path / "x.jsonl")} for name in ("a", "b")],
    }
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    tables = []
    for name, more in (("alone", ()), ("ray", ("--ray", "local", "--ray-workers", "2"))):
        words = ["eval", "--suite", str(tmp_path / "suite.yaml"), "-o", str(tmp_path / name), "--json", *more]
        done = subprocess.run([sys.executable, "-m", "elicitor", *words], capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        tables.append(without_seconds(json.loads(done.stdout)["results"]))
    assert tables[0] == tables[1]
    assert "left out" in json.dumps(tables[0])


def without_seconds(values):
    if isinstance(values, dict):
        return {key: without_seconds(value) for key, value in values.items() if key != "seconds"}
    return [without_seconds(value) for value in values] if isinstance(values, list) else values


def test_options_that_no_cluster_could_give_are_refused():
    from elicitor.distributed import RayOptions

    with pytest.raises(ConfigError, match="--ray-workers got 0"):
        RayOptions("local", workers=0)
    with pytest.raises(ConfigError, match="0 CPUs and 0 GPUs"):
        RayOptions("local", cpus=0)
    for cpus in (-1, math.nan, math.inf, 1e-9):
        with pytest.raises(ConfigError, match="--ray-cpus got"):
            RayOptions("local", cpus=cpus)
    with pytest.raises(ConfigError, match=r"--ray-gpus got 1\.5"):
        RayOptions("local", gpus=1.5)
    assert RayOptions("local", cpus=1.5, gpus=0.5).cpus == 1.5


def test_an_address_at_which_nobody_listens_is_refused(tmp_path):
    nobody = free_address()
    done = subprocess.run(
        command(write_texts(tmp_path, 4), tmp_path / "out", "--ray", nobody),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: no Ray cluster can be reached at '{nobody}': ")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_lost_node_with_idle_workers_costs_no_work(tmp_path):
    """More workers of the lost node are idle than losses of one piece are allowed."""
    code = "import test_distributed as t, sys; t.lose_idle_workers(sys.argv[1], sys.argv[2])"
    with cluster(tmp_path, cpus=3) as joined:
        done = subprocess.run(
            [sys.executable, "-c", code, joined.address, joined.nodes[1]],
            capture_output=True,
            text=True,
            timeout=400,
            cwd=Path(__file__).parent,
            env=joined.environment,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0"]


def lose_idle_workers(address, node):
    from elicitor.distributed import RayOptions, WorkerPool

    with WorkerPool(RayOptions(address, workers=6)) as pool:
        pool.load(build_config(flags={"data": "x", "task": "sentiment", "model": "fake"}), pieces=6)
        while len(pool._idle) < 6:
            pool._wait()
        lost = {int(process) for process in workers_of(node)}
        pids = {worker: pool._ray.get(worker.call.remote(process_of, None)) for worker in pool._idle}
        # Those of the node that goes are taken first.
        pool._idle.sort(key=lambda worker: pids[worker] in lost)
        assert len(lost) == 3
        kill_node(node)
        print(*pool.map(echo, range(1), name=str))


def process_of(backend, nothing):
    return os.getpid()


def echo(backend, argument):
    time.sleep(1)
    return argument


def test_options_of_a_cluster_need_a_cluster(tmp_path):
    done = subprocess.run(
        command(write_texts(tmp_path, 4), tmp_path / "out", "--ray-gpus", "1"), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == ("error: --ray-workers, --ray-cpus and --ray-gpus need a cluster; add --ray local or auto\n")
