"""HAProxy: one thread, a stick-table by user-agent, connections to upstream reused."""

from __future__ import annotations

from loadtests.bench.certificates import SERVER_NAME
from loadtests.bench.peers.peer import Peer, Running, Setting, find_program
from loadtests.bench.processes import free_port

# http-reuse "always" hands idle upstream connections to any client: what the guard does as well.
_CONFIGURATION = """\
global
  nbthread 1
  maxconn 8192
  ssl-server-verify required
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout http-keep-alive 120s
  option http-keep-alive
  http-reuse always
frontend guarded
  bind 127.0.0.1:{port}{bind_tls}
  stick-table type string len 128 size 20k expire 60s store http_req_rate(1s)
  http-request track-sc0 req.hdr(user-agent)
  http-request deny deny_status 429 if {{ req.hdr(user-agent) -m beg bad-agent/ }}
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 100000000 }}
  default_backend apiserver
backend apiserver
  server one 127.0.0.1:{upstream}{server_tls} pool-max-conn 512
"""


def start(setting: Setting) -> Running:
    port = free_port()
    bind_tls, server_tls = "", ""
    if setting.secure:
        bind_tls = f" ssl crt {setting.certificates.bundle} alpn http/1.1"
        server_tls = (
            f" ssl verify required ca-file {setting.certificates.authority}"
            f" sni str({SERVER_NAME}) alpn http/1.1"
        )
    file = setting.folder / "haproxy.cfg"
    file.write_text(
        _CONFIGURATION.format(
            port=port, bind_tls=bind_tls, server_tls=server_tls, upstream=setting.upstream_port
        )
    )
    process = setting.fleet.start(
        "haproxy",
        [find_program("haproxy"), "-db", "-f", str(file)],
        cpus=setting.cpus.proxy,
        ports=[port],
    )
    return Running("haproxy", port, process)


HAPROXY = Peer("haproxy", start, program="haproxy", package="apt install haproxy")
