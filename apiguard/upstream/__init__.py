"""Which API server gets a request, and over which connection. Decisions only.

``endpoint``  Endpoint: one address, what it carries and whether it can be asked
``balancer``  picks the lesser loaded of two usable endpoints
``pool``      Pool: use an idle connection, open one, wait or refuse
"""
