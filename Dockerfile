# One image for service and ingest: no torch inside. Build: docker build -t meleewm .
FROM python:3.11-slim

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY meleewm meleewm
COPY schemas schemas
COPY ingest ingest
COPY store store
COPY service service
COPY training training
RUN pip install --no-cache-dir -c constraints.txt '.[ingest,service]'

RUN useradd --create-home melee && mkdir /store && chown melee /store
USER melee
ENV MELEEWM_STORE=/store
VOLUME /store
EXPOSE 8000
ENTRYPOINT ["meleewm"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
