# The image of each service, by the name of its stage; they share all but a few words. The load
# generator has one of its own, as it needs libraries that they do not:
#
#     docker build --target coordinator -t running-median-coordinator .
#     docker build --target worker -t running-median-worker .
#     docker build --target loadgen -t running-median-loadgen .
#
# Dependencies come before the code, so that a change of code installs nothing. Only wheels are
# installed: there is no compiler here.

FROM python:3.12-slim AS build
WORKDIR /build
COPY pyproject.toml .
# The virtual environment has no pip of its own: the one outside fills it.
RUN python -m venv --without-pip /venv \
    && python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && pip --python /venv/bin/python install --no-cache-dir --only-binary :all: --requirement requirements.txt
# Compiled here, because the services may not write where they stand.
WORKDIR /app
COPY shared shared
COPY coordinator_service coordinator_service
COPY worker_service worker_service
RUN python -m compileall -q .

FROM build AS build-loadgen
WORKDIR /build
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['loadgen'], sep='\n')" > requirements.txt \
    && pip --python /venv/bin/python install --no-cache-dir --only-binary :all: --requirement requirements.txt
WORKDIR /app
COPY loadgen loadgen
RUN python -m compileall -q loadgen

FROM python:3.12-slim AS base
# /data is there, and theirs, so that a volume mounted on it is theirs too.
RUN pip uninstall --yes --root-user-action ignore pip \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /app median \
    && install --directory --owner median --group median /data
WORKDIR /app
USER 10001:10001
# OpenBLAS, which NumPy brings and nothing here uses, would start a thread for each core of the
# machine: more than `pids` allows on a large one.
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OPENBLAS_NUM_THREADS=1
STOPSIGNAL SIGTERM

FROM base AS service
COPY --from=build /venv /venv
COPY --from=build /app /app
# In a container 127.0.0.1 is nobody's but its own.
ENV MEDIAN_HOST=0.0.0.0
# `http.client` knows of no proxy: where one is set for containers, the question stays inside. So it
# need not ask for proof of who answers over TLS.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-c", "\
import http.client, os, ssl, sys; \
at = {'host': '127.0.0.1', 'port': int(os.environ['MEDIAN_PORT']), 'timeout': 4}; \
trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); \
trusting.check_hostname = False; \
trusting.verify_mode = ssl.CERT_NONE; \
speaks_tls = os.environ.get('MEDIAN_TLS_CERT'); \
asked = http.client.HTTPSConnection(**at, context=trusting) if speaks_tls \
else http.client.HTTPConnection(**at); \
asked.request('GET', '/health'); \
sys.exit(asked.getresponse().status != 200)"]

FROM base AS loadgen
COPY --from=build-loadgen /venv /venv
COPY --from=build-loadgen /app /app
ENTRYPOINT ["python", "-m", "loadgen"]
CMD ["--help"]

FROM service AS worker
ENV MEDIAN_PORT=8001
EXPOSE 8001
CMD ["python", "-m", "worker_service"]

FROM service AS coordinator
ENV MEDIAN_PORT=8000
EXPOSE 8000
CMD ["python", "-m", "coordinator_service"]
