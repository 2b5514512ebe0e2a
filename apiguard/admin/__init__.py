"""The port that still answers when traffic drowns.

It lives in the supervisor's process and answers from what workers last reported, so a busy or
dead worker delays nothing here; only changes and explanations ask workers, for a second at most.

``app``        the HTTP server: routes, bounds on connections
``access``     who may ask: token, Host, origin, content type
``views``      the supervisor's state as plain values
``handlers``   one function per route
``exporter``   totals and reports as Prometheus metrics, at scrape time

Every error is a Kubernetes Status.
"""
