"""Who a caller is, from the credential it presents.

``credentials``     which credential a request presents, read exactly as kube-apiserver reads it
``authenticator``   credential -> Authentication: verified, anonymous or unverified

Nothing here ever turns a failed credential into the anonymous user, and nothing but a proof makes
an ``Identity``.
"""
