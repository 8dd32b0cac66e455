from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from vault_ml.errors import ConfigError
from vault_ml.settings import (
    Settings,
    describe,
    load,
    markdown_table,
    notices,
    unknown_variables,
)
from vault_ml.settings.fields import ALIASES, NOT_YET, is_secret, names, variable
from vault_ml.tracking.distance import Distance

MINIMAL = {
    "QUEUE_NAME": "ml-queue",
    "KAFKA_BROKER": "kafka1.example:9094,kafka2.example:9094",
    "VAULT_API_URL": "https://vault.example/api",
    "VAULT_ACCESS_KEY": "access!@#$%12345",
    "VAULT_SECRET_KEY": "hidden!@#$%67890",
}

# The command that the original's README prints, with hosts of our own.
ORIGINAL = MINIMAL | {
    "QUEUE_SYSTEM": "KAFKA",
    "QUEUE_TARGET": "ml-results",
    "KAFKA_GROUP": "mygroup",
    "KAFKA_USERNAME": "xxx",
    "KAFKA_PASSWORD": "pass-word-1",
    "KAFKA_MECHANISM": "PLAIN",
    "KAFKA_SECURITY": "SASL_PLAINTEXT",
    "NUMBER_OF_PREDICTIONS": "5",
    "FORWARDING_MEDIA": "false",
    "FORWARDING_METADATA": "false",
    "FORWARDING_OBJECT_THRESHOLD": "1",
    "REMOVE_AFTER_PROCESSED": "false",
}


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(environ)
    return str(caught.value).split("\n")


def test_a_missing_variable_is_told_together_with_the_mistyped_one() -> None:
    typo = {**MINIMAL, "KAFKA_BROKERS": MINIMAL["KAFKA_BROKER"]}
    del typo["KAFKA_BROKER"]
    missing, hint = problems(typo)
    assert missing.startswith("KAFKA_BROKER is not set; ")
    assert hint == "KAFKA_BROKERS is set but unknown; did you mean KAFKA_BROKER?"


def test_an_empty_environment_names_everything_that_is_required() -> None:
    lines = problems({})
    assert [line.split()[0].rstrip(",") for line in lines] == [
        "QUEUE_NAME",
        "KAFKA_BROKER",
    ]


def test_the_command_of_the_original_is_understood() -> None:
    settings = load(ORIGINAL)
    assert settings.queue_system == "KAFKA"
    assert (settings.queue_name, settings.queue_target) == ("ml-queue", "ml-results")
    assert settings.kafka_group == "mygroup"
    assert settings.kafka_password is not None
    assert settings.kafka_password.get_secret_value() == "pass-word-1"
    assert settings.most_frames == 5
    assert not settings.forwarding_media
    assert not settings.remove_after_processed
    assert settings.dead_letter_queue == "ml-queue.dlq"
    assert notices(ORIGINAL) == []


def test_the_hub_command_of_the_original_is_understood() -> None:
    environ = {name: text for name, text in ORIGINAL.items() if not name.startswith("VAULT_")}
    environ |= {"QUEUE_NAME": "kcloud-analysis-queue.fifo", "QUEUE_TARGET": ""}
    settings = load(environ)
    assert settings.vault_api_url is None
    assert str(settings.origins) == "*"
    (sentence,) = notices(environ)
    assert "the Vault that each message names" in sentence


@pytest.mark.parametrize("left", ["VAULT_API_URL", "VAULT_ACCESS_KEY", "VAULT_SECRET_KEY"])
def test_the_vaults_variables_come_together_or_not_at_all(left: str) -> None:
    others = {name: text for name, text in MINIMAL.items() if not name.startswith("VAULT_")}
    lines = problems(others | {left: MINIMAL[left]})
    assert len(lines) == 2
    assert all(line.startswith("VAULT_") and "is not set" in line for line in lines)
    assert load(others).vault_api_url is None


def test_what_messages_may_name_depends_on_whether_a_vault_is_configured() -> None:
    others = {name: text for name, text in MINIMAL.items() if not name.startswith("VAULT_")}
    origins = {"MESSAGE_VAULT_ORIGINS": " https://*.Example.com , http://10.0.0.5:9000,*"}
    shown = "*,http://10.0.0.5:9000,https://*.example.com"
    assert str(load(MINIMAL).origins) == "none"
    assert str(load(others).origins) == "*"
    for environ in (MINIMAL, others):
        assert str(load(environ | origins).origins) == shown
        rows = {row.name: row for row in describe(load(environ | origins), environ | origins)}
        assert rows["MESSAGE_VAULT_ORIGINS"].value == shown
    none = {"MESSAGE_VAULT_ORIGINS": "none"}
    assert str(load(MINIMAL | none).origins) == "none"
    (line,) = problems(others | none)
    assert line.startswith("MESSAGE_VAULT_ORIGINS: is none while")


@pytest.mark.parametrize(
    "text", ["vault.example", "https://v.example/api", "https://u:canary@v.example", "none,*"]
)
def test_origins_that_are_none_say_so(text: str) -> None:
    (line,) = problems(MINIMAL | {"MESSAGE_VAULT_ORIGINS": text})
    assert line.startswith("MESSAGE_VAULT_ORIGINS: must be origins")
    assert "canary" not in line


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", ()),
        ("one", ("one",)),
        ("one,two,one,", ("one", "two")),
        (" spaces count ", (" spaces count ",)),
        ('["a,b", "c"]', ("a,b", "c")),
        ("[]", ()),
    ],
)
def test_keys_of_recordings_are_a_list(text: str, keys: tuple[str, ...]) -> None:
    assert load(MINIMAL | {"RECORDING_KEYS": text}).keys_of_recordings == keys


@pytest.mark.parametrize("text", ['["canary"', "[1]", '[""]', '["canary", null]'])
def test_keys_that_are_no_list_are_wrong_and_not_shown(text: str) -> None:
    (line,) = problems(MINIMAL | {"RECORDING_KEYS": text})
    assert line.startswith("RECORDING_KEYS: ")
    assert "canary" not in line


def test_a_key_needs_its_certificate() -> None:
    (line,) = problems(MINIMAL | {"VAULT_CLIENT_KEY": "/certs/me.key"})
    assert line.startswith("VAULT_CLIENT_CERT is not set")
    load(MINIMAL | {"VAULT_CLIENT_KEY": "/certs/me.key", "VAULT_CLIENT_CERT": "/certs/me.pem"})


def test_defaults_are_those_of_the_documentation() -> None:
    settings = load(MINIMAL)
    assert settings.queue_target is None
    assert settings.kafka_group == "vault-ml"
    assert settings.kafka_security is None
    assert settings.model == "auto"
    assert settings.most_frames == 5
    assert (settings.confidence_threshold, settings.nms_threshold) == (0.5, 0.45)
    assert settings.forwarding_object_threshold == 1
    assert (settings.sampling, settings.frames_per_s) == ("keyframe", None)
    assert settings.result_extras
    assert settings.worker_concurrency is None
    assert settings.web_host_port == ("127.0.0.1", 8080)
    assert settings.move_distance is None
    assert settings.allowed_labels is None


@pytest.mark.parametrize("text", ["true", "TRUE", "True", "1", "yes", "YES", "on", "On"])
def test_a_boolean_may_say_yes_in_many_ways(text: str) -> None:
    assert load(MINIMAL | {"FORWARDING_MEDIA": text}).forwarding_media is True


@pytest.mark.parametrize("text", ["false", "False", "FALSE", "0", "no", "No", "off", "", "  "])
def test_a_boolean_may_say_no_in_many_ways(text: str) -> None:
    assert load(MINIMAL | {"FORWARDING_MEDIA": text}).forwarding_media is False


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_an_empty_variable_is_an_unset_one(field: str) -> None:
    name = variable(field)
    if name in MINIMAL:
        without = {key: text for key, text in MINIMAL.items() if key != name}
        assert problems(MINIMAL | {name: ""}) == problems(without)
    else:
        assert load(MINIMAL | {name: ""}) == load(MINIMAL)


@pytest.mark.parametrize(
    ("field", "alias"), [(field, alias) for field, aliases in ALIASES.items() for alias in aliases]
)
def test_an_alias_sets_the_field_and_the_name_of_the_original_wins(field: str, alias: str) -> None:
    texts = {"vault_api_url": "http://a.example", "number_of_predictions": "7",
             "confidence_threshold": "0.25", "move_distance": "0"}  # fmt: skip
    text = texts.get(field, "from-alias")
    base = {name: value for name, value in MINIMAL.items() if name != variable(field)}
    settings = load(base | {alias: text})
    (row,) = [row for row in describe(settings, base | {alias: text}) if row.alias]
    assert (row.name, row.alias, row.source) == (variable(field), alias, "environment")
    if field != "move_distance":
        both = base | {alias: text, variable(field): MINIMAL.get(variable(field), "3" * 3)}
        if field == "confidence_threshold":
            both[variable(field)] = "0.75"
        assert [row.alias for row in describe(load(both), both) if row.alias] == []
        assert any(f"{variable(field)} is used" in sentence for sentence in notices(both))


def test_all_problems_are_told_at_once_one_line_each() -> None:
    lines = problems(
        {
            "TARGET_QUEUE_NAME": "same",
            "KAFKA_QUEUE_NAME": "same",
            "KAFKA_BROKER": "http://x/y",
            "KAFKA_PASSWORD": "pw-canary",
            "VAULT_API_URL": "vault",
            "VAULT_ACCESS_KEY": "ak-canary",
            "MAX_NUMBER_OF_PREDICTIONS": "0",
            "FORWARDING_MEDIA": "maybe",
            "MODEL": "yolov3",
        }
    )
    text = "\n".join(lines)
    assert [line.split()[0].rstrip(":") for line in lines] == [
        "TARGET_QUEUE_NAME",
        "KAFKA_BROKER",
        "KAFKA_USERNAME",
        "VAULT_API_URL",
        "VAULT_SECRET_KEY",
        "MAX_NUMBER_OF_PREDICTIONS",
        "FORWARDING_MEDIA",
    ]
    assert "canary" not in text
    assert "'maybe'" in text


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("NUMBER_OF_PREDICTIONS", "five", "whole number (it is 'five')"),
        ("NUMBER_OF_PREDICTIONS", "2.5", "whole number"),
        ("NUMBER_OF_PREDICTIONS", "0", "at least 1"),
        ("NUMBER_OF_PREDICTIONS", "100000", "at most 1000"),
        ("CONFIDENCE_THRESHOLD", "0", "more than 0"),
        ("CONFIDENCE_THRESHOLD", "1.5", "at most 1"),
        ("CONFIDENCE_THRESHOLD", "nan", "must be a number"),
        ("CLASSIFICATION_THRESHOLD", "50%", "CLASSIFICATION_THRESHOLD: must be a number"),
        ("FORWARDING_OBJECT_THRESHOLD", "-1", "at least 0"),
        ("QUEUE_SYSTEM", "NATS", "must be one of KAFKA, SQS, RABBITMQ (it is 'NATS')"),
        ("KAFKA_MECHANISM", "MD5", "SCRAM-SHA-256"),
        ("KAFKA_SECURITY", "TLS", "SASL_SSL"),
        ("KAFKA_BROKER", "kafka:9092,", "host:port"),
        ("KAFKA_OPTIONS", "enable.auto.commit=true", "only when the work is done"),
        ("KAFKA_OPTIONS", "sasl.password=canary", "set KAFKA_PASSWORD"),
        ("KAFKA_OPTIONS", "nothing", "key=value"),
        ("KAFKA_OPTIONS", "{oops", "JSON"),
        ("KAFKA_OPTIONS", '{"a": [1]}', "texts, numbers or booleans"),
        ("VAULT_API_URL", "ftp://vault", "https://vault.example.com/api"),
        ("VAULT_API_URL", "https://vault:port/", "https://vault.example.com/api"),
        ("VAULT_API_URL", "https://user:canary@vault/", "must not hold a user"),
        ("VAULT_API_URL", "https://vault/?a=canary", "must not have a ?"),
        ("VAULT_API_PREFIX", "api", "starts with /"),
        ("FORWARD_METADATA_PATH", "storage", "path that starts with /"),
        ("FORWARD_METADATA_METHOD", "GET", "must be one of POST, PUT, PATCH"),
        ("RECORDING_MAX_BYTES", "big", "500MB or 1GiB"),
        ("WEB_ADDRESS", "8080", "host:port"),
        ("WEB_ADDRESS", ":8080", "0.0.0.0:8080"),
        ("WEB_ADDRESS", "0.0.0.0:99999", "host:port"),
        ("WORKER_CONCURRENCY", "many", "whole number"),
        ("LOG_FORMAT", "xml", "auto, console, json, classic"),
        ("RETRY_BACKOFF_S", "inf", "must be a number"),
        ("SQS_ENDPOINT_URL", "localhost:4566", "http://localhost:4566"),
        ("SQS_ENDPOINT_URL", "http://user:canary@sqs/", "without user"),
        ("SQS_ENDPOINT_URL", "http://sqs:port", "http://localhost:4566"),
        ("SQS_VISIBILITY_S", "1", "at least 2"),
        ("SQS_VISIBILITY_S", "43201", "at most 43200"),
        ("AWS_DEFAULT_REGION", "Ireland", "eu-west-1"),
        ("RABBITMQ_HOST", "amqp://me:canary@mq", "RABBITMQ_USERNAME and RABBITMQ_PASSWORD"),
        ("QUEUE_HOST", "http://mq", "amqp(s)://host:port/vhost"),
        ("RABBITMQ_HOST", "mq:99999", "host:port"),
        ("RABBITMQ_HOST", "amqp://a/one,amqp://b/two", "RABBITMQ_VHOST"),
        ("RABBITMQ_MANAGEMENT_URL", "http://me:canary@mq:15672", "without user"),
        ("RABBITMQ_ACK_TIMEOUT_S", "-1", "at least 0"),
        ("RABBITMQ_DELIVERY_LIMIT", "many", "whole number"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(name: str, text: str, part: str) -> None:
    (line,) = problems(MINIMAL | {name: text})
    assert line.startswith(f"{name}: ")
    assert part in line
    assert "canary" not in line


@pytest.mark.parametrize(
    ("name", "text"),
    [(variable(field), value.upper()) for field, values in NOT_YET.items() for value in values],
)
def test_what_a_later_version_will_do_is_not_silently_accepted(name: str, text: str) -> None:
    (line,) = problems(MINIMAL | {name: text})
    assert line.startswith(f"{name}: ")
    assert "not in this version yet" in line


@pytest.mark.parametrize("text", ["", "0", "0.0", "0%"])
def test_no_move_distance_is_fine(text: str) -> None:
    assert load(MINIMAL | {"MOVE_DISTANCE": text}).move_distance is None


@pytest.mark.parametrize("text", ["far", "-1", "nan", "inf%", "5%%"])
def test_a_move_distance_that_is_no_distance_is_wrong(text: str) -> None:
    (line,) = problems(MINIMAL | {"MOVE_DISTANCE": text})
    assert "number of pixels" in line


def test_distances_are_pixels_or_a_part_of_the_diagonal() -> None:
    environ = MINIMAL | {"MIN_DISTANCE": "50", "MIN_STATIC_DISTANCE": "2.5 %"}
    settings = load(environ)
    assert settings.move_distance == Distance(50)
    assert settings.min_static_distance == Distance(2.5, is_percent=True)
    shown = {row.name: row.value for row in describe(settings, environ)}
    assert (shown["MOVE_DISTANCE"], shown["MIN_STATIC_DISTANCE"]) == ("50", "2.5%")


def test_the_variables_of_hub_pipeline_classifier_mean_what_it_documents() -> None:
    settings = load(
        MINIMAL
        | {
            "CLASSIFICATION_FPS": "5",
            "CLASSIFICATION_THRESHOLD": "0.4",
            "MAX_NUMBER_OF_PREDICTIONS": "1000",
            "MIN_DISTANCE": "50",
            "MIN_STATIC_DISTANCE": "40",
            "MIN_DETECTIONS": "5",
            "ALLOWED_CLASSIFICATIONS": "0, 1, 2,28",
        }
    )
    assert (settings.sampling, settings.frames_per_s, settings.most_frames) == ("fps", 5.0, 1000)
    assert (settings.move_distance, settings.min_static_distance) == (Distance(50), Distance(40))
    assert settings.min_detections == 5
    assert settings.allowed_classifications == frozenset({0, 1, 2, 28})
    assert settings.confidence_threshold == 0.4


def test_frames_of_each_second_have_defaults_of_their_own() -> None:
    settings = load(MINIMAL | {"FRAME_SAMPLING": "FPS"})
    assert (settings.frames_per_s, settings.most_frames) == (3.0, 100)
    (line,) = problems(MINIMAL | {"FRAME_SAMPLING": "exact", "CLASSIFICATION_FPS": "5"})
    assert line.startswith("CLASSIFICATION_FPS: FRAME_SAMPLING=exact does not")


def test_labels_are_given_by_name_or_by_number_and_not_both() -> None:
    (line,) = problems(MINIMAL | {"ALLOWED_LABELS": "car", "ALLOWED_CLASSIFICATIONS": "2"})
    assert line.startswith("ALLOWED_CLASSIFICATIONS: ALLOWED_LABELS is set as well")
    (line,) = problems(MINIMAL | {"ALLOWED_CLASSIFICATIONS": "0, car"})
    assert "for names use ALLOWED_LABELS" in line


@pytest.mark.parametrize(
    ("queue", "profile"),
    [
        ("kcloud-classify-queue.fifo", "hub"),
        ("kcloud-analysis-queue", "hub"),
        ("ml-results", "vault"),
        ("my-kcloud-classify-queue", "vault"),
    ],
)
def test_who_reads_the_results_tells_their_shape(queue: str, profile: str) -> None:
    environ = MINIMAL | {"QUEUE_TARGET": queue}
    assert load(environ).profile == profile
    assert load(environ | {"RESULT_PROFILE": "VAULT"}).profile == "vault"
    assert any("Hub's shape" in sentence for sentence in notices(environ)) == (profile == "hub")


def test_hubs_words_may_be_others_or_none() -> None:
    assert load(MINIMAL).hub_labels is None
    assert load(MINIMAL | {"HUB_LABELS": "None"}).hub_labels == {}
    words = load(MINIMAL | {"HUB_LABELS": "person=human, car=auto"}).hub_labels
    assert words == {"person": "human", "car": "auto"}


HUB_ML = {
    "QUEUE_SYSTEM": "RABBITMQ",
    "QUEUE_NAME": "kcloud-classify-queue.fifo",
    "QUEUE_TARGET": "kcloud-analysis-queue",
    "KAFKA_BROKER": "kafka1.example:9094",
    "KAFKA_GROUP": "group",
    "KAFKA_USERNAME": "user",
    "KAFKA_PASSWORD": "password",
    "KAFKA_MECHANISM": "PLAIN",
    "KAFKA_SECURITY": "SASL_PLAINTEXT",
    "RABBITMQ_HOST": "rabbitmq.example:5672",
    "RABBITMQ_EXCHANGE": "",
    "RABBITMQ_USERNAME": "user",
    "RABBITMQ_PASSWORD": "password",
    "VAULT_API_URL": "https://vault.example/api",
    "VAULT_ACCESS_KEY": "access",
    "VAULT_SECRET_KEY": "secret",
    "FORWARDING_MEDIA": "false",
    "FORWARDING_METADATA": "false",
    "FORWARDING_OBJECT_THRESHOLD": "10",
    "REMOVE_AFTER_PROCESSED": "false",
    "NUMBER_OF_PREDICTIONS": "10",
    "MOVE_DISTANCE": "100",
}


@pytest.mark.parametrize("system", ["RABBITMQ", "KAFKA"])
def test_the_variables_of_hub_ml_yaml_are_understood(system: str) -> None:
    settings = load(HUB_ML | {"QUEUE_SYSTEM": system})
    assert settings.profile == "hub"
    assert settings.most_frames == 10
    assert settings.move_distance == Distance(100)
    assert settings.rabbitmq_exchange is None


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({"KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "p"}, "KAFKA_SECURITY"),
        (
            {"KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "p", "KAFKA_SECURITY": "SSL"},
            "KAFKA_SECURITY",
        ),
        ({"KAFKA_USERNAME": "u", "KAFKA_SECURITY": "SASL_SSL"}, "KAFKA_PASSWORD"),
        ({"KAFKA_PASSWORD": "p", "KAFKA_SECURITY": "SASL_SSL"}, "KAFKA_USERNAME"),
        ({"KAFKA_SECURITY": "sasl_ssl"}, "KAFKA_USERNAME"),
        ({"QUEUE_TARGET": "ml-queue"}, "QUEUE_TARGET"),
        ({"QUEUE_TARGET": "ml-queue.dlq"}, "QUEUE_TARGET"),
        ({"QUEUE_DEAD_LETTER": "ml-queue"}, "QUEUE_DEAD_LETTER"),
        ({"QUEUE_DEAD_LETTER": "out", "QUEUE_TARGET": "out"}, "QUEUE_DEAD_LETTER"),
        ({"RETRY_BACKOFF_S": "60", "RETRY_BACKOFF_MAX_S": "30"}, "RETRY_BACKOFF_S"),
        ({"VAULT_ACCESS_KEY": ""}, "VAULT_ACCESS_KEY"),
    ],
)
def test_values_that_contradict_each_other_are_told(extra: dict[str, str], name: str) -> None:
    (line,) = problems(MINIMAL | extra)
    assert line.startswith(name)


def test_a_value_wrong_in_itself_is_not_also_called_contradictory() -> None:
    (line,) = problems(MINIMAL | {"RETRY_BACKOFF_S": "soon", "RETRY_BACKOFF_MAX_S": "30"})
    assert "must be a number" in line


def test_a_plain_broker_needs_no_login_and_kerberos_tickets_no_password() -> None:
    assert load(MINIMAL | {"KAFKA_MECHANISM": "plain"}).kafka_mechanism == "PLAIN"
    tickets = {"KAFKA_SECURITY": "SASL_SSL", "KAFKA_MECHANISM": "GSSAPI"}
    assert load(MINIMAL | tickets).kafka_username is None
    assert load(MINIMAL | tickets | {"KAFKA_USERNAME": "u"}).kafka_username == "u"


def test_quotes_that_docker_left_around_a_value_are_told() -> None:
    (line,) = problems(MINIMAL | {"QUEUE_TARGET": '"ml-results"'})
    assert line.startswith("QUEUE_TARGET: the quotes")


def test_a_secret_read_from_a_file_loses_its_line_break_and_nothing_else() -> None:
    settings = load(MINIMAL | {"VAULT_SECRET_KEY": ' "sp ace" \n', "QUEUE_NAME": " ml-queue\n"})
    assert settings.vault_secret_key is not None
    assert settings.vault_secret_key.get_secret_value() == ' "sp ace" '
    assert settings.queue_name == "ml-queue"


def test_sizes_labels_options_and_numbers_are_read() -> None:
    settings = load(
        MINIMAL
        | {
            "RECORDING_MAX_BYTES": "500MB",
            "ALLOWED_LABELS": "person, traffic light,,car",
            "KAFKA_OPTIONS": "ssl.ca.location=/certs/ca.pem, client.id = a=b",
            "WORKER_CONCURRENCY": "3",
            "WEB_ADDRESS": "[::1]:0",
            "VAULT_API_PREFIX": "/api/",
            "KAFKA_BROKER": "[::1]:9092, SASL_SSL://kafka.example",
        }
    )
    assert settings.recording_max_bytes == 500_000_000
    assert settings.allowed_labels == frozenset({"person", "traffic light", "car"})
    assert settings.kafka_options == {"ssl.ca.location": "/certs/ca.pem", "client.id": "a=b"}
    assert settings.worker_concurrency == 3
    assert settings.web_host_port == ("::1", 0)
    assert settings.vault_api_prefix == "/api"
    assert settings.kafka_broker == "[::1]:9092,SASL_SSL://kafka.example"
    as_json = load(MINIMAL | {"KAFKA_OPTIONS": '{"a": true, "b": 5, "c": "x,y"}'})
    assert as_json.kafka_options == {"a": "true", "b": "5", "c": "x,y"}
    assert load(MINIMAL | {"WORKER_CONCURRENCY": "AUTO"}).worker_concurrency is None
    assert load(MINIMAL | {"WEB_ADDRESS": "OFF"}).web_host_port is None
    assert load(MINIMAL | {"VAULT_API_PREFIX": "/"}).vault_api_prefix == "none"
    assert load(MINIMAL | {"ALLOWED_LABELS": " , "}).allowed_labels is None


def test_a_mistyped_variable_is_noticed_and_foreign_ones_are_not() -> None:
    environ = {
        "KAFKA_BROKERS": "x",
        "VAULT_API_UR": "x",
        "queue_name": "x",
        "KAFKA_HEAP_OPTS": "x",
        "KAFKA_PORT_9092_TCP_ADDR": "x",
        "VAULT_SERVICE_HOST": "x",
        "KAFKA_SERVICE_PORT": "x",
        "PATH": "x",
        "MODELS": "x",
    }
    assert unknown_variables(environ) == [
        ("KAFKA_BROKERS", "KAFKA_BROKER"),
        ("VAULT_API_UR", "VAULT_API_URL"),
        ("queue_name", "QUEUE_NAME"),
    ]
    assert "KAFKA_BROKERS is set but unknown; did you mean KAFKA_BROKER?" in notices(environ)
    assert unknown_variables({name: "x" for field in Settings.model_fields
                              for name in names(field)}) == []  # fmt: skip


def test_a_setting_of_the_successors_that_is_not_obeyed_is_noticed() -> None:
    environ = MINIMAL | {"CONDITION": "1 car", "TRANSLATED_CLASSIFICATIONS": "0"}
    assert [sentence.split()[0] for sentence in notices(environ)] == ["CONDITION"]
    assert unknown_variables(environ) == []


def test_removing_what_nobody_hears_of_is_noticed() -> None:
    (sentence,) = notices(MINIMAL | {"REMOVE_AFTER_PROCESSED": "Yes"})
    assert "told to no one" in sentence
    assert not notices(MINIMAL | {"REMOVE_AFTER_PROCESSED": "Yes", "QUEUE_TARGET": "out"})
    assert not notices(MINIMAL | {"REMOVE_AFTER_PROCESSED": "Yes", "FORWARDING_MEDIA": "1"})


def test_no_secret_is_ever_printed() -> None:
    environ = ORIGINAL | {
        "RABBITMQ_PASSWORD": "rabbit-1",
        "KAFKA_OPTIONS": "ssl.key.password=key-canary,client.id=me",
    }
    settings = load(environ)
    text = repr(settings) + str(describe(settings, environ)) + str(settings.model_dump())
    for secret in ("access!@#$%12345", "hidden!@#$%67890", "pass-word-1", "rabbit-1"):
        assert secret not in text
    rows = {row.name: row for row in describe(settings, environ)}
    assert rows["VAULT_SECRET_KEY"].value == "***"
    assert rows["KAFKA_OPTIONS"].value == "ssl.key.password=***,client.id=me"
    assert rows["QUEUE_DEAD_LETTER"].value == "ml-queue.dlq"
    assert rows["QUEUE_DEAD_LETTER"].source == "default"
    assert rows["WORKER_CONCURRENCY"].value == "auto"
    assert rows["FORWARDING_MEDIA"].value == "false"
    assert rows["RABBITMQ_HOST"].value == ""
    assert rows["MODEL_DIR"].value.endswith("models")


def test_labels_are_shown_as_they_are_given() -> None:
    environ = MINIMAL | {"ALLOWED_LABELS": "truck,car"}
    rows = {row.name: row.value for row in describe(load(environ), environ)}
    assert rows["ALLOWED_LABELS"] == "car,truck"


def test_settings_are_frozen() -> None:
    settings = load(MINIMAL)
    with pytest.raises(ValidationError):
        settings.queue_name = "other"


def test_nothing_but_what_is_passed_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUEUE_TARGET", "from-the-machine")
    (tmp_path / ".env").write_text("QUEUE_TARGET=from-a-file\n")
    monkeypatch.chdir(tmp_path)
    assert load(MINIMAL).queue_target is None


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_every_setting_is_described_and_in_the_table(field: str) -> None:
    description = Settings.model_fields[field].description
    assert description
    assert description.endswith(".")
    (row,) = [line for line in markdown_table().splitlines() if f"| `{variable(field)}` |" in line]
    assert row.count(" | ") == 2
    for alias in ALIASES.get(field, ()):
        assert f"`{alias}`" in row


def test_every_time_and_size_says_its_unit() -> None:
    for field, info in Settings.model_fields.items():
        if field.endswith("_s"):
            assert "second" in (info.description or ""), field
        if field.endswith("_bytes"):
            assert "bytes" in (info.description or ""), field


def test_the_table_is_the_same_on_every_machine() -> None:
    assert str(Path.home()) + "/" not in markdown_table()
    assert "None" not in markdown_table()


def test_what_looks_like_a_secret_is_one() -> None:
    for field in Settings.model_fields:
        # The name of a file with a key in it is no secret.
        if field.endswith(("password", "_key", "_keys")) and field != "vault_client_key":
            assert is_secret(field), field


SQS = {name: text for name, text in MINIMAL.items() if name != "KAFKA_BROKER"} | {
    "QUEUE_SYSTEM": "sqs",
    "QUEUE_NAME": "ml-queue.fifo",
}


def test_sqs_needs_no_variable_of_kafka_and_keeps_fifo_at_the_end_of_its_dead_letters() -> None:
    settings = load(SQS | {"AWS_DEFAULT_REGION": "eu-west-1"})
    assert (settings.queue_system, settings.aws_region) == ("SQS", "eu-west-1")
    assert settings.dead_letter_queue == "ml-queue-dlq.fifo"
    assert load(SQS | {"QUEUE_NAME": "ml-queue"}).dead_letter_queue == "ml-queue-dlq"
    assert settings.sqs_visibility_s == 120
    assert settings.sqs_endpoint_url is None
    assert (
        load(SQS | {"SQS_ENDPOINT_URL": "http://sqs:4566/"}).sqs_endpoint_url == "http://sqs:4566"
    )


def test_the_variables_of_aws_itself_are_not_taken_for_mistyped_ones_of_ours() -> None:
    assert unknown_variables({"AWS_ENDPOINT_URL": "x", "AWS_ENDPOINT_URL_SQS": "x"}) == []


URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/"


@pytest.mark.parametrize(
    ("extra", "name", "part"),
    [
        ({"QUEUE_NAME": "ml.queue"}, "QUEUE_NAME", "letters, digits"),
        ({"QUEUE_NAME": "x" * 81}, "QUEUE_NAME", "at most 80"),
        ({"QUEUE_TARGET": "https://me:canary@sqs/1/q"}, "QUEUE_TARGET", "plain URL"),
        ({"QUEUE_TARGET": "https://sqs/1/q?a=canary"}, "QUEUE_TARGET", "plain URL"),
        ({"QUEUE_DEAD_LETTER": "a.fifo.b"}, "QUEUE_DEAD_LETTER", "letters, digits"),
        ({"QUEUE_TARGET": "ml-queue.fifo"}, "QUEUE_TARGET", "queue that is read"),
        ({"QUEUE_TARGET": URL + "ml-queue.fifo"}, "QUEUE_TARGET", "queue that is read"),
        ({"QUEUE_TARGET": URL + "ml-queue-dlq.fifo"}, "QUEUE_TARGET", "dead letters"),
        ({"QUEUE_DEAD_LETTER": URL + "ml-queue.fifo"}, "QUEUE_DEAD_LETTER", "also the queue"),
    ],
)
def test_what_sqs_would_refuse_is_told_at_start(
    extra: dict[str, str], name: str, part: str
) -> None:
    (line,) = problems(SQS | extra)
    assert line.startswith(f"{name}: ")
    assert part in line
    assert "canary" not in line


def test_queues_of_one_name_in_two_accounts_are_two_queues() -> None:
    other = "https://sqs.eu-west-1.amazonaws.com/999999999999/q"
    environ = SQS | {"QUEUE_NAME": URL + "q", "QUEUE_TARGET": other}
    assert load(environ).queue_target == other


RABBITMQ = {name: text for name, text in MINIMAL.items() if name != "KAFKA_BROKER"} | {
    "QUEUE_SYSTEM": "RabbitMQ",
    "RABBITMQ_HOST": "rabbitmq.rabbitmq:5672",
}


def test_rabbitmq_needs_its_host_and_no_variable_of_kafka() -> None:
    settings = load(RABBITMQ)
    assert (settings.queue_system, settings.dead_letter_queue) == ("RABBITMQ", "ml-queue.dlq")
    assert (settings.rabbitmq_ack_timeout_s, settings.rabbitmq_delivery_limit) == (1800.0, None)
    (line,) = problems({**RABBITMQ, "RABBITMQ_HOST": ""})
    assert line == "RABBITMQ_HOST is not set; set it to the address of your RabbitMQ, host:port"


@pytest.mark.parametrize(
    ("given", "missing"),
    [("RABBITMQ_USERNAME", "RABBITMQ_PASSWORD"), ("QUEUE_PASSWORD", "RABBITMQ_USERNAME")],
)
def test_half_a_login_of_rabbitmq_is_told(given: str, missing: str) -> None:
    (line,) = problems(RABBITMQ | {given: "x"})
    assert line.startswith(f"{missing} is not set though RABBITMQ_")


# --- secrets in files


def test_reads_a_secret_from_the_file_that_its_variable_names(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from!a file \n")
    environ = {name: text for name, text in MINIMAL.items() if name != "VAULT_SECRET_KEY"}
    chosen = load(environ | {"VAULT_SECRET_KEY_FILE": str(tmp_path / "key")})
    assert chosen.vault_secret_key is not None
    # Only the line break goes: a blank may be part of a secret.
    assert chosen.vault_secret_key.get_secret_value() == "from!a file "


def test_reads_user_names_and_other_names_of_a_secret_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "user").write_text("somebody\n")
    (tmp_path / "secret").write_text("hidden")
    environ = {name: text for name, text in MINIMAL.items() if name != "VAULT_SECRET_KEY"}
    files = {
        "KAFKA_PASSWORD": "pass-word-1",
        "KAFKA_SECURITY": "SASL_SSL",
        "KAFKA_USERNAME_FILE": str(tmp_path / "user"),
        "KERBEROS_STORAGE_SECRET_FILE": str(tmp_path / "secret"),
    }
    chosen = load(environ | files)
    assert chosen.kafka_username == "somebody"
    assert chosen.vault_secret_key is not None
    assert chosen.vault_secret_key.get_secret_value() == "hidden"
    rows = {row.name: row for row in describe(chosen, environ | files)}
    assert rows["VAULT_SECRET_KEY"].alias == "KERBEROS_STORAGE_SECRET_FILE"
    assert rows["VAULT_SECRET_KEY"].value != "hidden"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\xff\xfe", "no text"),
        (b"x" * 70_000, "too long"),
    ],
    ids=["missing", "empty", "no text", "too long"],
)
def test_says_what_is_wrong_with_a_secret_file_without_its_content(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"VAULT_SECRET_KEY_FILE: .*{reason}") as caught:
        load(
            {name: text for name, text in MINIMAL.items() if name != "VAULT_SECRET_KEY"}
            | {"VAULT_SECRET_KEY_FILE": str(path)}
        )
    assert "xxxx" not in str(caught.value)


def test_a_variable_wins_over_its_file_and_says_so(tmp_path: Path) -> None:
    environ = MINIMAL | {"VAULT_SECRET_KEY_FILE": str(tmp_path / "missing")}
    assert load(environ).vault_secret_key is not None
    assert any("VAULT_SECRET_KEY_FILE are both set" in each for each in notices(environ))


def test_a_file_is_read_for_secrets_and_user_names_only(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("other-queue")
    environ = {name: text for name, text in MINIMAL.items() if name != "QUEUE_NAME"}
    with pytest.raises(ConfigError, match="QUEUE_NAME is not set"):
        load(environ | {"QUEUE_NAME_FILE": str(tmp_path / "name")})
    assert ("VAULT_SECRET_KEY_FIL", "VAULT_SECRET_KEY_FILE") in unknown_variables(
        {"VAULT_SECRET_KEY_FIL": "x"}
    )


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("keyframe", "fp32", "square")),
        ({"PRESET": "parity"}, ("exact", "fp32", "square")),
        ({"PRESET": "fast"}, ("keyframe", "int8", "rect")),
        ({"PRESET": "FAST", "PRECISION": "fp32"}, ("keyframe", "fp32", "rect")),
        ({"PRESET": "fast", "INPUT_SHAPE": "square"}, ("keyframe", "int8", "square")),
        ({"PRESET": "parity", "FRAME_SAMPLING": "keyframe"}, ("keyframe", "fp32", "square")),
        ({"PRESET": "parity", "CLASSIFICATION_FPS": "2"}, ("fps", "fp32", "square")),
    ],
)
def test_preset_is_what_is_not_set_by_itself(
    variables: dict[str, str], expected: tuple[str, str, str]
) -> None:
    chosen = load(MINIMAL | variables)
    assert (chosen.sampling, chosen.number_format, chosen.shape) == expected
    rows = {row.name: row.value for row in describe(chosen, MINIMAL | variables)}
    assert (rows["FRAME_SAMPLING"], rows["PRECISION"], rows["INPUT_SHAPE"]) == expected


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"PRECISION": "int8", "RUNTIME": "mnn"}, "RUNTIME: mnn does not run INT8 models"),
        ({"PRESET": "fast", "RUNTIME": "cuda"}, "RUNTIME: cuda does not run INT8 models"),
        ({"PRECISION": "fp16"}, "PRECISION: fp16 needs RUNTIME=tensorrt"),
        ({"PRECISION": "fp16", "RUNTIME": "cuda"}, "PRECISION: fp16 needs RUNTIME=tensorrt"),
    ],
)
def test_what_no_runtime_can_do_is_said_at_start(variables: dict[str, str], sentence: str) -> None:
    (line,) = problems(MINIMAL | variables)
    assert line.startswith(sentence)


def test_what_runtimes_can_do_is_accepted() -> None:
    load(MINIMAL | {"PRECISION": "int8", "RUNTIME": "openvino"})
    load(MINIMAL | {"PRECISION": "fp16", "RUNTIME": "TensorRT"})
    load(MINIMAL | {"PRESET": "fast", "PRECISION": "fp32", "RUNTIME": "mnn"})
