"""The proxies under test, each started the same way.

A peer is given a ``Setting`` (certificates, ports, a folder for its files) and becomes a running
process with one listening port. All of them verify the upstream's certificate, keep upstream
connections, offer the same key type, and keep an account per user-agent; none logs requests.

``guard.py`` apiguard · ``haproxy.py`` · ``nginx.py`` · ``floor.py`` the least that uvloop and
httptools can do · ``naive.py`` what one writes with aiohttp in an afternoon · ``direct.py`` no
proxy at all
"""
