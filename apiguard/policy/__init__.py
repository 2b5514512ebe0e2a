"""From a file's text to an immutable snapshot that classifies requests.

``document``   strict YAML: text -> nodes that know their lines
``fields``     reads declared fields out of nodes and collects every problem, not only the first
``schema``     shape of a ThrottlePolicy file
``relayrule``  what a rule says of the relay
``config``     shape of a GuardConfig file
``patterns``   globs and regular expressions, and tables of them that answer with bit masks
``resources``  the same for ``pods``, ``pods/*``, ``deployments.apps``, ``*/status``
``sources``    the same for networks
``matcher``    the fields of all rules together: request and caller -> mask of rules
``policy``     Policy.match(RequestInfo, Caller) -> Flow, first match wins
``judging``    which of a flow's limits refuse and which only count, by its mode and the guard's
``overrides``  rules an operator lays over a policy by hand; what the body of such a request says
``preview``    recorded samples under another policy: what would change, and for whom
``effects``    the figures of such a change
``compile``    text -> Policy, and what is suspicious about it
``cover``      whether one rule matches everything another does

A policy is a pure function of its text: no paths, no clock, no environment, so that its digest
means the same on every worker. Nothing here opens files.

PyYAML has its own file, ``document``, rather than a place in ``schema``: two kinds of files are
read with the same strictness, and the loader is what faces hostile text (a policy arrives over
the admin port), so its caps and refusals stand together and are tested on their own.

What a request costs is no file of its own yet: each costs one token (``limiter.limiter.COST``),
and ``requestsPerSecond`` keeps that meaning.
"""
