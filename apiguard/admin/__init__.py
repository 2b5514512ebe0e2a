"""The port that still answers when traffic drowns.

It lives in the supervisor's process and answers from what workers last reported, so a busy or
dead worker delays nothing here; only changes and explanations ask workers, for a second at most.

``app``          the HTTP server: joins doors, checks and handlers; every failure as a Status
``listener``     a door: accepts, bounds what strangers hold open; ``unixsocket`` opens the host's
``files``        what doors rest on: ``credentials`` (who is it?) and ``tls``
``access``       who may ask: Host, origin, content type, credential
``routes``       the table: what each route needs and accepts
``handlers``     state, servers, top, audit; ``policies`` and ``overriding`` what operators change
``relayhandlers`` the relay, which ``relaying`` puts together from what workers report
``parameters``   queries and bodies, read strictly; ``refusals`` what operations refuse, as Status
``views``        the supervisor's state as plain values; ``replies`` writes them
``openapi``      the port described, from that table and the types of ``openapi_shapes``
``exporter``     totals and reports as Prometheus metrics, at scrape time, ``relaymetrics`` those
                 of the relay, in ``families``; ``answers`` counts ours

Every error is a Kubernetes Status.
"""
