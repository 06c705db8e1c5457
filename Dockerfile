# The image of ems-bots for people with Docker:
#   docker build -t ems-bots:dev .

FROM rust:1.95.0-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make cmake pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY migrations migrations
# Cargo wants to see every target that the manifest names, though it builds the binary alone.
COPY tests tests
COPY benches benches
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin ems-bots \
    && strip -o /ems-bots target/release/ems-bots

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
COPY --from=build /ems-bots /usr/local/bin/ems-bots
# A number and not a name: a kubelet cannot tell whether a name is root.
USER 65532:65532
WORKDIR /
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/ems-bots"]
