"""As much of a cluster as one machine can be: pods as processes, and the API that starts runs.

A container is its command in namespaces of bubblewrap: the user that its pod names, without capabilities, a
root that cannot be written, and of volumes what its pod mounts. ConfigMaps and Secrets are files and
variables, Services are names of this machine, probes are asked as a kubelet asks. Jobs come by HTTPS, as
dagster_k8s sends them, and only what the rendered Role allows.

What it is not: a network of its own, limits of resources, a scheduler, images. Of those nothing is tested.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from testbench_dagster_tests.certificates import Certificates
from testbench_dagster_tests.deploy import checking
from testbench_dagster_tests.deploy.charts import NAMESPACE, Object, containers
from testbench_dagster_tests.deploy.dockerfile import environment, stages
from testbench_dagster_tests.servers import ends_with_us, free_port, show_log

ROOT = Path(__file__).parents[2]
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
_SECRET = "a token of this test"
_JOBS = re.compile(
    rf"/apis/batch/v1/namespaces/{NAMESPACE}/(?P<kind>jobs)(/(?P<name>[^/]+)(/(?P<sub>status))?)?"
)
_CORE = re.compile(
    rf"/api/v1/namespaces/{NAMESPACE}/(?P<kind>pods|events)(/(?P<name>[^/]+)(/(?P<sub>log))?)?"
)


class Cluster:
    """Pods and an API; a context manager that ends all of them."""

    def __init__(self, objects: list[Object], folder: Path, certificates: Certificates) -> None:
        self.objects = objects
        self.folder = folder
        self.pods: dict[str, subprocess.Popen[bytes]] = {}
        self.jobs: dict[str, Object] = {}
        #: What was asked for without a right to it.
        self.denied: list[tuple[str, str, str]] = []
        self._certificates = certificates
        self._stack = contextlib.ExitStack()
        # a process ends with the thread that started it, and those of the API end with each request
        self._starter = ThreadPoolExecutor(1)
        (folder / "hosts").write_text(
            "127.0.0.1 localhost\n"
            + "".join(
                f"127.0.0.1 {one['metadata']['name']}\n" for one in objects if one["kind"] == "Service"
            ),
            encoding="utf-8",
        )

    def __enter__(self) -> Cluster:
        self.api = _Api(self)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificates.server, self._certificates.key)
        self.api.socket = context.wrap_socket(self.api.socket, server_side=True)
        threading.Thread(target=self.api.serve_forever, daemon=True).start()
        self._stack.callback(self.api.server_close)
        self._stack.callback(self.api.shutdown)
        return self

    def __exit__(self, *exc: object) -> None:
        for name in list(self.pods):
            self.end(name, within_s=30)
        self._stack.close()
        self._starter.shutdown()

    def run(self, name: str, template: Object) -> list[tuple[int, str]]:
        """The containers of a pod, one after the other until one fails: exit codes and what they said."""
        ended = []
        for container in containers(template):
            process = self._start(f"{name}-{container['name']}", template, container)
            code = process.wait(300)
            ended.append((code, self.said(f"{name}-{container['name']}")))
            if code:
                break
        return ended

    def start(self, name: str, template: Object) -> None:
        """Start the pod of one container."""
        [container] = containers(template)
        self.pods[name] = self._start(name, template, container)

    def end(self, name: str, within_s: float | None = None) -> int:
        """Tell a pod to go as a kubelet does, and kill it when its time is over; its exit code."""
        process = self.pods[name]
        if process.poll() is None:
            # bubblewrap is the first process here; in a pod tini passes the signal on to the command
            for child in _children(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(within_s)
            if process.poll() is None:
                process.kill()
        return process.wait()

    def said(self, name: str) -> str:
        """What a container wrote."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def ready(self, template: Object) -> bool:
        """Whether the readiness probe of a pod's container passes."""
        [container] = containers(template)
        probe, ports = (
            container["readinessProbe"],
            {one["name"]: one["containerPort"] for one in container["ports"]},
        )
        if "grpc" in probe:
            with grpc.insecure_channel(f"127.0.0.1:{probe['grpc']['port']}") as channel:
                asked = health_pb2.HealthCheckRequest(service=probe["grpc"]["service"])
                with contextlib.suppress(grpc.RpcError):
                    return bool(health_pb2_grpc.HealthStub(channel).Check(asked, timeout=5).status == 1)
            return False
        url = f"http://127.0.0.1:{ports[probe['httpGet']['port']]}{probe['httpGet']['path']}"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
            return bool(200 <= answer.status < 400)
        return False

    def live(self, template: Object, name: str) -> int:
        """The exit code of the command by which a kubelet asks whether a pod lives."""
        [container] = containers(template)
        asking = {**container, "args": container["livenessProbe"]["exec"]["command"]}
        return self._start(f"{name}-live", template, asking).wait(120)

    def _start(self, name: str, template: Object, container: Object) -> subprocess.Popen[bytes]:
        log = self.folder / f"{name}.log"
        show_log(name, log)
        with log.open("ab") as out:
            return self._starter.submit(
                subprocess.Popen,
                self._command(name, template, container),
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=self._variables(template, container),
                preexec_fn=ends_with_us(signal.SIGKILL),
            ).result()

    def _command(self, name: str, template: Object, container: Object) -> list[str]:
        user = str(template["spec"]["securityContext"]["runAsUser"])
        assert container["securityContext"]["readOnlyRootFilesystem"]
        command = [
            "bwrap",
            "--die-with-parent",
            "--unshare-user",
            "--uid",
            user,
            "--gid",
            user,
            "--unshare-pid",
        ]
        # as the profiles of container runtimes do
        command += ["--disable-userns", "--cap-drop", "ALL", "--hostname", name[:63], "--unshare-uts"]
        for path in (
            "/usr",
            "/bin",
            "/sbin",
            "/lib",
            "/lib64",
            "/etc/ld.so.cache",
            "/etc/passwd",
            "/etc/ssl",
        ):
            command += ["--ro-bind-try", path, path]
        command += ["--ro-bind", str(self.folder / "hosts"), "/etc/hosts", "--dev", "/dev", "--proc", "/proc"]
        volumes = {volume["name"]: self._volume(name, volume) for volume in template["spec"]["volumes"]}
        for mount in container["volumeMounts"]:
            source = volumes[mount["name"]] / mount.get("subPath", "")
            how = "--ro-bind" if mount.get("readOnly") else "--bind"
            command += [how, str(source), mount["mountPath"]]
        if template["spec"]["automountServiceAccountToken"]:
            command += ["--ro-bind", str(self._token()), _TOKEN]
        # what an image has in /opt/testbench
        for path in dict.fromkeys((sys.prefix, sys.base_prefix, str(ROOT / "testbench_dagster"))):
            command += ["--ro-bind", path, path]
        return [*command, "--remount-ro", "/", "--chdir", "/var/lib/testbench", "--", *container["args"]]

    def _volume(self, name: str, volume: Object) -> Path:
        folder = self.folder / "volumes" / name / volume["name"]
        folder.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            for file, text in self._data("ConfigMap", volume["configMap"]["name"]).items():
                (folder / file).write_text(text, encoding="utf-8")
        return folder

    def _token(self) -> Path:
        folder = self.folder / "token"
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(_SECRET)
        (folder / "namespace").write_text(NAMESPACE)
        (folder / "ca.crt").write_bytes(self._certificates.ca.read_bytes())
        return folder

    def _variables(self, template: Object, container: Object) -> dict[str, str]:
        """Those of the image, of a kubelet, and of the container, and none of this process."""
        given = environment(stages()[-1])
        given["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        given["PYTHONPATH"] = str(ROOT)
        given["KUBERNETES_SERVICE_HOST"] = "127.0.0.1"
        given["KUBERNETES_SERVICE_PORT"] = str(self.api.server_address[1])
        for source in container.get("envFrom") or ():
            given |= self._data("Secret", source["secretRef"]["name"])
        for variable in container["env"]:
            if "value" in variable:
                given[variable["name"]] = variable["value"]
            else:
                reference = variable["valueFrom"]["secretKeyRef"]
                given[variable["name"]] = self._data("Secret", reference["name"])[reference["key"]]
        return given

    def _data(self, kind: str, name: str) -> dict[str, str]:
        one = next(one for one in self.objects if (one["kind"], one["metadata"]["name"]) == (kind, name))
        found: dict[str, str] = one["data" if kind == "ConfigMap" else "stringData"]
        return found

    # -- what the API is asked for --------------------------------------------------------------------------

    def allowed(self, group: str, resource: str, verb: str) -> bool:
        """Whether the rendered Role says so; what it does not allow is noted."""
        role = next(one for one in self.objects if one["kind"] == "Role")
        if any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for rule in role["rules"]
        ):
            return True
        self.denied.append((group, resource, verb))
        return False

    def create_job(self, job: Object) -> None:
        """Start its pod, if the API server of a cluster would take it."""
        wrong = checking.field_problems(job)
        if wrong:
            raise ValueError("; ".join(wrong))
        self.jobs[job["metadata"]["name"]] = job
        self.start(job["metadata"]["name"], job["spec"]["template"])

    def status(self, name: str) -> Object:
        """The status of a Job."""
        code = self.pods[name].poll()
        return {"active": 1} if code is None else {"succeeded": 1} if code == 0 else {"failed": 1}

    def delete(self, name: str) -> None:
        """End a Job's pod, which has its grace period for that."""
        grace = self.jobs[name]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        threading.Thread(target=self.end, args=(name, grace), daemon=True).start()


def _children(pid: int) -> Iterator[int]:
    """The processes of a container, below the first of bubblewrap."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            below = list(_children(child))
            yield from below or [child]


class _Api(ThreadingHTTPServer):
    """What dagster_k8s asks an API server for, and no more."""

    daemon_threads = True

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(("127.0.0.1", free_port()), _Handler)
        self.cluster = cluster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left early."""


class _Handler(BaseHTTPRequestHandler):
    server: _Api

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        if self.headers.get("Authorization") != f"bearer {_SECRET}":
            self._say(401, {"message": "who are you?"})
            return
        url = urlsplit(self.path)
        match, group = _JOBS.fullmatch(url.path), "batch"
        if match is None:
            match, group = _CORE.fullmatch(url.path), ""
        if match is None:
            self._say(404, {"message": f"there is nothing at {url.path}"})
            return
        resource = "/".join(part for part in (match["kind"], match["sub"]) if part)
        verb = {"GET": "get" if match["name"] else "list", "POST": "create", "DELETE": "delete"}[self.command]
        if not self.server.cluster.allowed(group, resource, verb):
            self._say(403, {"message": f"{verb} {resource} is forbidden"})
            return
        self._say(*self._result(resource, verb, match["name"], body, parse_qs(url.query)))

    def _result(
        self, resource: str, verb: str, name: str | None, body: Object, query: Mapping[str, list[str]]
    ) -> tuple[int, Object]:
        cluster = self.server.cluster
        if (resource, verb) == ("jobs", "create"):
            try:
                cluster.create_job(body)
            except ValueError as error:
                return 422, {"message": str(error)}
            return 201, body
        if verb == "list":
            wanted = " ".join(query.get("labelSelector", ()) or query.get("fieldSelector", ()))
            names = [job for job in cluster.jobs if job in wanted] if resource != "events" else []
            items = [{"metadata": {"name": job}, "status": {"phase": "Running"}} for job in names]
            return 200, {"kind": "List", "apiVersion": "v1", "items": items}
        if name not in cluster.jobs:
            return 404, {"message": f"there is no {name}"}
        if resource == "jobs/status":
            return 200, {**cluster.jobs[name], "status": cluster.status(name)}
        if verb == "delete":
            cluster.delete(name)
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        return 200, {}

    def _say(self, code: int, body: Object) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def on_free_ports(objects: list[Object]) -> list[Object]:
    """With other ports than those of the chart: this machine has one network for all that runs on it."""
    text = yaml.safe_dump_all(objects, width=10_000)
    for port in (3000, 3001, 4000, 9469):
        text = re.sub(rf"(?<=[=: ]){port}\b", str(free_port()), text)
    return [one for one in yaml.safe_load_all(text) if one is not None]
