"""Metrics, traces and log events of a running system. All of it only reads; nothing is measured twice.

- `penstock.telemetry.prometheus`: a collector for prometheus-client (extra ``metrics``)
- `penstock.telemetry.opentelemetry`: spans and metrics of OpenTelemetry (extra ``otel``)
- `penstock.telemetry.lifecycle`: structured log events of each stream's life
- `penstock.telemetry.names`: the tables of all names
- `penstock.telemetry.gateway`: what a gateway tells of itself
"""
