"""Kubernetes vocabulary: what a request means and who makes it, without any byte of HTTP.

``requestinfo``  method and target -> RequestInfo, exactly as kube-apiserver derives it
``identity``     Identity (proven) and ClaimedIdentity (not), and the Caller of a request
``status``       Status bodies, JSON and protobuf, built once
``selectors``    label and field predicates
"""
