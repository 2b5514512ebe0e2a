"""Kubernetes vocabulary: what a request means and who makes it, without any byte of HTTP.

``requestinfo``  method and target -> RequestInfo, exactly as kube-apiserver derives it
``neturl``       percent escapes and queries, as Go reads them
``identity``     Identity (proven) and ClaimedIdentity (not), and the Caller of a request
``selectors``    label and field predicates
``status``       Status bodies, JSON and protobuf, built once
``protobuf``     the two wire types those bodies need
"""
