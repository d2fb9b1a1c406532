"""Embedded trace store: OTLP in, Jaeger's query API out, all in bounded memory.

It is the default of the local stack; whoever outgrows it points BACKSTAY_JAEGER_QUERY_URL at a real Jaeger.
"""
