# Build: the guard and its dependencies in an environment of their own, so that the final image has
# no compiler, no wheel and no cache.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/apiguard
COPY pyproject.toml README.md LICENSE ./
COPY apiguard apiguard
RUN /opt/apiguard/bin/pip install --no-cache-dir --disable-pip-version-check . \
    && /opt/apiguard/bin/pip uninstall --yes pip setuptools \
    && /opt/apiguard/bin/python -m compileall -q /opt/apiguard

FROM python:3.11-slim
# Compiled files come from the build stage: whatever owns a read-only root cannot write its own.
COPY --from=build /opt/apiguard /opt/apiguard
RUN install -d -o 65532 -g 65532 -m 0700 /var/lib/apiguard
ENV PATH=/opt/apiguard/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# Numeric, so that runAsNonRoot can be verified without reading /etc/passwd.
USER 65532:65532
# The one place it writes; everything else may be mounted read-only.
VOLUME /var/lib/apiguard
EXPOSE 6443 7444
# For engines that ask the image; Kubernetes has the probes of its manifests. The admin port answers
# while the traffic port drowns, and a guard whose upstream is away must not be restarted for it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7444/livez', timeout=4)"]
# The process itself is told by SIGTERM to drain; it needs no init, since it reaps its own workers.
ENTRYPOINT ["apiguard"]
CMD ["serve", "--config", "/etc/apiguard/guard.yaml"]
