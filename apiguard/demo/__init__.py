"""An embedded API server with a synthetic cluster: what the demo, tests and load tests run against.

It plays kube-apiserver's side of the wire and shares no code with the guard's reading of a
request: a double that used the code under test would agree with its mistakes.

``encoding``   values <-> JSON bytes as Go writes them
``resources``  which resources are served, with their selectable fields
``customresources``  definitions -> resources that come and go
``store``      objects, one revision counter, history, snapshots
``protobuf``   values <-> protobuf bytes, by a table of field numbers
``negotiation``  Accept -> representation; ``representations`` writes in it
``options``    list and watch parameters -> what to read, or the error kube-apiserver gives
``watching``   who hears of a change, with shared frames
``authentication``  who asks; ``impersonation``  whom the request is taken for
``serviceaccounts``  tokens of service accounts and the keys to verify them
``authorization``  who may do what; ``rbac`` reads stored roles and bindings
``patching``   JSON patch, merge patch, strategic merge patch
``capacity``   a virtual CPU: how long a request takes and when the server collapses
``faults``     slow, fail, hang, reset on demand
``control``    watches dropped, stalled or expired; compaction; old backups restored
``cluster``    nodes, pods and the rest, deterministic by seed; churn
``rollouts``   pods and status for the deployments others make
``apiserver``  ``EmbeddedApiServer``: all of it behind aiohttp
``demo``       the API server, the guard and the files of ``apiguard demo``

Up to ``cluster`` everything is sans-IO: time and randomness are arguments.
"""
