# syntax=docker/dockerfile:1
#
#   docker build -t gateway:0.1.0 .
#   docker run -p 127.0.0.1:8080:8080 -e GATEWAY_REDIS_URL=redis://... gateway:0.1.0
#
# Your handlers go on top:
#   FROM gateway:0.1.0
#   COPY myapp /app/myapp
#   ENV GATEWAY_HANDLER=myapp.chat:router

ARG PYTHON=3.13-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /src
# The environment has no pip of its own: what is copied from here can install nothing.
RUN python -m venv --without-pip /opt/gateway
COPY pyproject.toml requirements-ci.txt README.md LICENSE ./
COPY gateway gateway
RUN pip --python /opt/gateway/bin/python install --no-cache-dir --constraint requirements-ci.txt .

FROM python:${PYTHON}
RUN pip uninstall --yes --root-user-action=ignore pip
COPY --from=build /opt/gateway /opt/gateway
WORKDIR /app
# Nothing is written to the file system, which may be read-only. Behind a published port or a Service, loopback
# would reach nobody.
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_PORT=8080
# A number, since only of a number Kubernetes can tell that it is not root.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "import http.client, os; node = http.client.HTTPConnection('127.0.0.1', int(os.environ['GATEWAY_PORT']), timeout=2); node.request('GET', '/healthz'); raise SystemExit(node.getresponse().status != 200)"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
