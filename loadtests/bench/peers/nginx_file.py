"""nginx: one worker, the list of pods as a static file."""

from __future__ import annotations

from loadtests.bench import pods
from loadtests.bench.peers.peer import Peer, Running, Setting, find_program
from loadtests.bench.processes import free_port

_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/nginx-file.pid;
error_log {folder}/nginx-file-error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  keepalive_requests 100000000;
  sendfile on;
  tcp_nopush on;
  open_file_cache max=16;
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    root {folder}/files;
    location / {{ default_type application/json; }}
  }}
}}
"""


def start(setting: Setting) -> Running:
    port = free_port()
    served = setting.folder / "files" / pods.PATH.lstrip("/")
    served.parent.mkdir(parents=True, exist_ok=True)
    served.write_bytes(pods.a_list())
    file = setting.folder / "nginx-file.conf"
    issued = setting.certificates
    file.write_text(
        _CONFIGURATION.format(
            folder=setting.folder, port=port, certificate=issued.certificate, key=issued.key
        )
    )
    process = setting.fleet.start(
        "nginx-file",
        [find_program("nginx"), "-p", str(setting.folder), "-c", str(file), "-e", "stderr"],
        cpus=setting.cpus.proxy,
        ports=[port],
    )
    return Running("nginx-file", port, process)


NGINX_FILE = Peer("nginx-file", start, program="nginx", package="apt install nginx")
