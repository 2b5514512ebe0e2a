"""Who a caller is, from the credential it presents.

``credentials``     which credential a request presents, read exactly as kube-apiserver reads it
``certificate``     client certificate -> Identity, judged again as time and authorities change
``keys``            JWKS -> KeySet: public keys, each with its one algorithm
``jwt``             token and keys -> Verdict, within a budget of signature checks
``claims``          verified claims -> Identity, for service accounts and OpenID Connect
``reviews``         other tokens: which TokenReviews are wanted, and what they said
``authenticator``   credential -> Authentication: verified, anonymous, unverified or refused
``proof``           how a caller was proven, and whether that suffices for cached data
``attributes``      caller and request -> Question, the access review to ask
``accessreview``    its answer -> Allowed, Denied or nothing
``authorizer``      decisions remembered, renewed within a budget, kept for open watches
``forbidden``       the 403 of a denied request, in upstream's words

Nothing here ever turns a failed credential into the anonymous user, and nothing but a proof makes
an ``Identity``. No request waits for its token: one that is still to be proven counts as
unverified. Only a request for cached data waits, and briefly, for its review: without one it goes
upstream.
"""
