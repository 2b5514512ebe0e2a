"""A guard that has to tell callers apart, and one caller of each kind it knows.

Before anything is measured each caller is shown to be taken for who it is: the guard says in
which rule and bucket its request fell, upstream which headers and certificate arrived. Otherwise
a token that fails verification would look splendidly cheap.
"""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import ssl
import time
from collections.abc import Mapping
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from loadtests.bench import certificates
from loadtests.bench.peers.guard import (
    ADMIN_TOKEN,
    ORDINARY_RULES,
    REST,
    launch,
    policy,
    tls_sections,
)
from loadtests.bench.peers.peer import Caller, Peer, Running, Setting
from loadtests.bench.processes import StartError
from loadtests.bench.responder import PRESENTED, SEEN_PATH

NAME = "apiguard"
OPAQUE, JWT, CERTIFICATE = "opaque", "jwt", "certificate"

_ISSUER = "https://kubernetes.default.svc"
_ACCOUNT = "system:serviceaccount:team-0:web"
_KEY_ID = "bench"
_HOUR = 3600
_COUNTED_DEADLINE = 5.0


def _start(setting: Setting) -> Running:
    folder = setting.folder / NAME
    folder.mkdir(parents=True, exist_ok=True)
    callers = _callers(folder / "jwks.json", setting.certificates.client)
    running = launch(setting, NAME, policy(ORDINARY_RULES), _sections(setting), callers)
    _prove(running, setting)
    return running


IDENTITY_GUARD = Peer(NAME, _start)


def _sections(setting: Setting) -> dict[str, dict[str, object]]:
    issued = setting.certificates
    listen, upstream = tls_sections(issued)
    speaking = str(issued.front_proxy)
    return {
        "listen": {"tls": {**listen, "clientCAFile": str(issued.authority)}},
        "upstream": {**upstream, "frontProxy": {"certFile": speaking, "keyFile": speaking}},
        "identity": {"jwt": [{"issuer": _ISSUER, "jwksFile": "jwks.json"}]},
    }


def _callers(key_set: Path, certificate: Path) -> dict[str, Caller]:
    """A projected token whose key is written to ``key_set``, noise of its length, a kubelet."""
    key = rsa.generate_private_key(65537, 2048)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    key_set.write_text(json.dumps({"keys": [{**public, "kid": _KEY_ID, "use": "sig"}]}))
    token = jwt.encode(_claims(), key, "RS256", {"kid": _KEY_ID})
    noise = base64.urlsafe_b64encode(secrets.token_bytes(len(token))).decode()
    return {
        OPAQUE: Caller(token=noise[: len(token)]),
        JWT: Caller(token=token),
        CERTIFICATE: Caller(certificate=str(certificate)),
    }


def _claims() -> dict[str, object]:
    """What kube-apiserver writes into the token of a pod."""
    now = int(time.time())
    uid = "6a9a4f5e-6c2d-4f0e-9d0b-3f8f6f1b2c3d"
    return {
        "iss": _ISSUER,
        "aud": [_ISSUER],
        "sub": _ACCOUNT,
        "iat": now,
        "nbf": now,
        "exp": now + _HOUR,
        "jti": uid,
        "kubernetes.io": {
            "namespace": "team-0",
            "serviceaccount": {"name": "web", "uid": uid},
            "pod": {"name": "web-0", "uid": uid},
            "node": {"name": "node-0", "uid": uid},
        },
    }


def _prove(running: Running, setting: Setting) -> None:
    """Every caller is who it should be, here and upstream. Raises ``StartError``."""
    authority = str(setting.certificates.authority)
    seen = {name: _ask(running.port, authority, who) for name, who in running.callers.items()}
    user = f"X-Remote-User: {certificates.CLIENT_NAME}"
    speaks = f"{PRESENTED}: {certificates.FRONT_PROXY_NAME}"
    if user not in seen[CERTIFICATE] or speaks not in seen[CERTIFICATE]:
        raise StartError(f"the certificate's user did not arrive upstream: {seen[CERTIFICATE]}")
    for name in (OPAQUE, JWT):
        token = f"Authorization: Bearer {running.callers[name].token}"
        if token not in seen[name] or "X-Remote-" in seen[name] or speaks in seen[name]:
            raise StartError(f"the {name} token did not arrive as it was sent: {seen[name]}")
    wanted = {("default", "source 127.0.0.1"), (REST, _ACCOUNT), (REST, certificates.CLIENT_NAME)}
    deadline = time.monotonic() + _COUNTED_DEADLINE
    while not wanted <= (found := _buckets(running.admin)):
        if time.monotonic() > deadline:
            raise StartError(f"callers fell into {sorted(found)}, not {sorted(wanted)}")
        time.sleep(0.05)


def _ask(port: int, authority: str, caller: Caller) -> str:
    """The head upstream received of one request by ``caller``."""
    context = ssl.create_default_context(cafile=authority)
    if caller.certificate:
        context.load_cert_chain(caller.certificate)
    connection = http.client.HTTPSConnection("localhost", port, timeout=5, context=context)
    headers = {"Authorization": f"Bearer {caller.token}"} if caller.token else {}
    try:
        connection.request("GET", SEEN_PATH, headers=headers)
        return connection.getresponse().read().decode("latin-1")
    except OSError as error:
        raise StartError(f"no answer through the guard: {error}") from error
    finally:
        connection.close()


def _buckets(admin: int) -> set[tuple[str, str]]:
    """Rules, each with every part of the keys of its buckets: users, sources, families."""
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=5)
    try:
        connection.request("GET", "/v1/flows", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        rules: list[Mapping[str, object]] = json.load(connection.getresponse())["rules"]
    finally:
        connection.close()
    return {(str(rule["rule"]), key) for rule in rules for key in _key_parts(rule)}


def _key_parts(rule: Mapping[str, object]) -> list[str]:
    limits = rule["limits"]
    assert isinstance(limits, list)
    return [part for limit in limits for bucket in limit["buckets"] for part in bucket["key"]]
