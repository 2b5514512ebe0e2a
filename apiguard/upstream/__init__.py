"""Which API server gets a request, and over which connection. Decisions only.

``readyz``    what a server says of itself -> Condition
``health``    Health: conditions -> fit or not, by rise and fall
``kind``      what a connection proves to upstream
``endpoint``  Endpoint: one address, what it carries and whether it can be asked
``balancer``  picks the lesser loaded of two fit endpoints, or the least bad
``pool``      Pool: use an idle connection, open one, wait or refuse
"""
