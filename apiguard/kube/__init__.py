"""Kubernetes vocabulary: what a request means and who makes it, without any byte of HTTP.

``requestinfo``  method and target -> RequestInfo, exactly as kube-apiserver derives it
``neturl``       percent escapes and queries, as Go reads them
``identity``     Identity (proven) and ClaimedIdentity (not), and the Caller of a request
``selectors``    label and field predicates
``status``       Status bodies, JSON and protobuf, built once
``protobuf``     the two wire types those bodies need
``protoreader``  any message, read by field numbers
``objects``      an object's bytes -> key, version, labels, selectable fields
``lists``        a LIST body -> its items' exact bytes
``framing``      watch frames of both framings, and what an object wears in which place
"""
