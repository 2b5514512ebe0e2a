# Build: wheels of the guard and its dependencies, so that the final image has no compiler or pip cache.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY apiguard apiguard
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.11-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels apiguard \
    && install -d -o 65532 -g 65532 -m 0700 /var/lib/apiguard
# Numeric, so that runAsNonRoot can be verified without reading /etc/passwd.
USER 65532:65532
ENV PYTHONDONTWRITEBYTECODE=1
VOLUME /var/lib/apiguard
EXPOSE 6443 7444
# The process itself is told by SIGTERM to drain; it needs no init, since it reaps its own workers.
ENTRYPOINT ["apiguard"]
CMD ["serve", "--config", "/etc/apiguard/guard.yaml"]
