"""nginx: one worker, limit_req by user-agent, connections to upstream kept."""

from __future__ import annotations

from loadtests.bench.certificates import SERVER_NAME
from loadtests.bench.peers.peer import Peer, Running, Setting, find_program
from loadtests.bench.processes import free_port

# keepalive_requests: the default of 1,000 would add a handshake to every thousandth request.
_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  keepalive_timeout 120s;
  keepalive_requests 100000000;
  limit_req_zone $http_user_agent zone=agents:10m rate=1000000r/s;
  limit_req_status 429;
  upstream apiserver {{
    server 127.0.0.1:{upstream};
    keepalive 512;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port}{listen_tls} backlog=4096;
    {tls}
    location / {{
      limit_req zone=agents burst=100000 nodelay;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_max_temp_file_size 0;
      proxy_buffering {buffering};
      proxy_pass {scheme}://apiserver;
    }}
  }}
}}
"""
_TLS = """ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate {authority};
    proxy_ssl_name {name};
    proxy_ssl_server_name on;
    proxy_ssl_protocols TLSv1.2 TLSv1.3;"""


def _start(setting: Setting, *, streaming: bool) -> Running:
    port = free_port()
    issued = setting.certificates
    tls = _TLS.format(
        certificate=issued.certificate,
        key=issued.key,
        authority=issued.authority,
        name=SERVER_NAME,
    )
    file = setting.folder / "nginx.conf"
    file.write_text(
        _CONFIGURATION.format(
            folder=setting.folder,
            port=port,
            listen_tls=" ssl" if setting.secure else "",
            tls=tls if setting.secure else "",
            upstream=setting.upstream_port,
            scheme="https" if setting.secure else "http",
            buffering="off" if streaming else "on",
        )
    )
    process = setting.fleet.start(
        "nginx",
        [find_program("nginx"), "-p", str(setting.folder), "-c", str(file), "-e", "stderr"],
        cpus=setting.cpus.proxy,
        ports=[port],
    )
    return Running("nginx", port, process)


def start(setting: Setting) -> Running:
    return _start(setting, streaming=False)


def start_streaming(setting: Setting) -> Running:
    """Without response buffering: watches must be passed on at once."""
    return _start(setting, streaming=True)


NGINX = Peer("nginx", start, program="nginx", package="apt install nginx")
STREAMING_NGINX = Peer("nginx", start_streaming, program="nginx", package="apt install nginx")
