"""Manifests for Kubernetes, checked against JobSet's own schema and the rules beside it."""

import json
import pathlib
import re

import jsonschema
import pytest
import yaml

from configs.clusters import gke_h100, gke_tpu_v5e
from launch.clusters.gke import job
from launch.clusters.work import Work
from launch.submit import cluster_of
from prior_jax.errors import ConfigError

SCHEMA = pathlib.Path(__file__).parent / "data" / "jobset_v1alpha2.json"
# Reasons of a job's failure that JobSet knows (its webhook).
REASONS = {"BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "PodFailurePolicy"}
LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
ARGUMENTS = ("--config=configs/debug.py", "--config.name=a 'b' \"c\" # {{ d }} $(HOME) é")


def strict(schema):
    """The schema with unknown keys refused, as the server does with a manifest that is given."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(part) for key, part in schema.items() if key != "properties"}
    if "properties" in schema:
        found["properties"] = {key: strict(part) for key, part in schema["properties"].items()}
        found.setdefault("additionalProperties", False)
    return found


@pytest.fixture(scope="module")
def validator():
    schema = strict(json.loads(SCHEMA.read_text()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def work(**changes):
    given = dict(
        name="my-run",
        workdir=pathlib.Path("/runs/my run"),
        module="launch.train",
        arguments=ARGUMENTS,
    )
    return Work(**given | changes)


def manifest(kind, **changes):
    config = kind.get_config()
    config.update(changes)
    return yaml.safe_load(job.manifest(cluster_of(config), work()))


MANIFESTS = {
    "a slice": lambda: manifest(gke_tpu_v5e),
    "four slices that stay": lambda: manifest(gke_tpu_v5e, slices=4, spot=False),
    "GPUs": lambda: manifest(gke_h100),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifest_is_one_of_the_schema(name, validator):
    validator.validate(MANIFESTS[name]())


def set_at(content, path, value):
    *way, last = path
    for key in way:
        content = content[key]
    if value is None:
        del content[last]
    else:
        content[last] = value


TEMPLATE = ("spec", "replicatedJobs", 0, "template", "spec")
POD = (*TEMPLATE, "template", "spec")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicatedJobs", 0, "name"), None),
        (("spec", "failurePolicy", "rules", 0, "action"), "Restart"),
        (("spec", "failurePolicy", "maxRestart"), 3),
        ((*TEMPLATE, "parallelism"), "4"),
        ((*TEMPLATE, "backoffLimits"), 0),
        ((*TEMPLATE, "podFailurePolicy", "rules", 0, "onExitCodes", "values"), ["75"]),
        ((*POD, "containers", 0, "name"), None),
        ((*POD, "containers", 0, "env", 0, "valueFrom", "fieldReference"), {}),
        ((*POD, "nodeSelector", "spot"), True),
    ],
)
def test_the_schema_would_find_a_mistake(path, value, validator):
    content = MANIFESTS["a slice"]()
    set_at(content, path, value)
    assert not validator.is_valid(content)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifest_keeps_the_rules_beside_the_schema(name):
    content = MANIFESTS[name]()
    assert (content["apiVersion"], content["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (one,) = content["spec"]["replicatedJobs"]
    spec = one["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    last = f"{one['replicas'] - 1}-{spec['completions'] - 1}"
    assert LABEL.fullmatch(f"{content['metadata']['name']}-{one['name']}-{last}-abcde")
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    # A pod failure policy needs pods that do not restart by themselves.
    assert pod["restartPolicy"] == "Never" and spec["backoffLimit"] == 0
    exits, lost = spec["podFailurePolicy"]["rules"]
    assert exits["onExitCodes"] == dict(containerName=container["name"], operator="In", values=[75])
    assert lost["onPodConditions"] == [dict(type="DisruptionTarget", status="True")]
    (rule,) = content["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert set(rule["onJobFailureReasons"]) == {"PodFailurePolicy"} <= REASONS
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    names = {variable["name"] for variable in container["env"]}
    used = re.findall(r"(?<!\$)\$\((\w+)\)", " ".join(container["command"]))
    assert set(used) == names == {"SLICE", "PROCESS"}


def expanded(command):
    """What Kubernetes makes of a command in pod 3 of job 1."""
    values = {"$$(": "$(", "$(SLICE)": "1", "$(PROCESS)": "3"}
    return [re.sub(r"\$\$\(|\$\(\w+\)", lambda match: values[match[0]], word) for word in command]


def test_a_pod_runs_the_program_with_its_log_and_the_arguments_as_they_were_given():
    (container,) = MANIFESTS["a slice"]()["spec"]["replicatedJobs"][0]["template"]["spec"][
        "template"
    ]["spec"]["containers"]
    assert expanded(container["command"]) == [
        "bash",
        "launch/clusters/one_process.sh",
        "/runs/my run/logs/process_1_3.log",
        *("python3", "-m", "launch.train", *ARGUMENTS, "--distributed=auto"),
    ]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}


def test_gpu_processes_are_told_of_their_coordinator():
    spec = MANIFESTS["GPUs"]()["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = spec["template"]["spec"]
    assert expanded(pod["containers"][0]["command"])[-4:] == [
        "--distributed=explicit",
        "--coordinator=my-run-workers-0-0.my-run:8476",
        "--processes=2",
        "--process=3",
    ]
    assert spec["completions"] == 2
    assert pod["nodeSelector"]["cloud.google.com/gke-accelerator"] == "nvidia-h100-80gb"
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 8}


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        (gke_tpu_v5e, dict(topology="4x8"), r"cluster\.topology: The value is '4x8'.*16 chips"),
        (gke_tpu_v5e, dict(topology=None), r"cluster\.topology: The value is None"),
        (gke_tpu_v5e, dict(image=""), r"cluster\.image.*--cluster\.image"),
        (gke_tpu_v5e, dict(hosts=0), r"cluster\.hosts"),
        (gke_h100, dict(slices=2), r"cluster\.slices: The value is 2\. It must be 1"),
        (gke_h100, dict(topology="4x4"), r"cluster\.topology"),
    ],
)
def test_a_mistake_is_refused_by_name(kind, changes, named):
    with pytest.raises(ConfigError, match=named):
        manifest(kind, **changes)


def test_the_devices_of_a_run_are_those_of_all_pods():
    assert cluster_of(gke_h100.get_config()).devices == 16
    config = gke_tpu_v5e.get_config()
    config.slices = 4
    assert cluster_of(config).devices == 64


def test_a_workdir_that_the_pods_do_not_share_is_refused():
    with pytest.raises(ConfigError, match=r"--workdir: /tmp/x is not in .*/runs"):
        job.train(cluster_of(gke_h100.get_config()), work(workdir=pathlib.Path("/tmp/x")))
