"""Django's own tests that may end differently with the library on, each with its reason.

Only tests that count statements, capture SQL or look into `Signal.receivers` belong here.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERY_DJANGO = frozenset({"5.2", "6.0", "6.1"})
FROM_6_0 = frozenset({"6.0", "6.1"})
FROM_6_1 = frozenset({"6.1"})
MARIADB = frozenset({"mariadb"})
SQLITE = frozenset({"sqlite"})
EVERY_DATABASE = frozenset({"sqlite", "postgres", "mariadb"})


@dataclass(frozen=True)
class Allowed:
    """One test that may differ, and the versions and databases on which it does."""

    test: str
    reason: str
    django: frozenset[str] = EVERY_DJANGO
    databases: frozenset[str] = EVERY_DATABASE


# Receivers alone make these tests end differently, even without the library.
LISTENED_DELETE = "counts the statements of a delete: somebody listens, so Django loads the rows first"
LISTENED_COLUMNS = "captures the SELECT of a delete: somebody listens, so Django loads whole rows"
LISTENED_COLUMN = (
    "deletes from a table that lacks a column of the model: somebody listens, so Django loads the rows"
)
LISTENED_FIELD = (
    "Django's own fault: with a listener its Collector tries to set a composite foreign key to null"
)
RECEIVERS = "looks into Signal.receivers, and finds the receiver of this run"
# The library makes these tests end differently, as it must.
UPDATE = "counts the statements of a bulk update: the rows are loaded, to send their signals"
BULK_UPDATE = (
    "counts the statements of a bulk_update(): the rows that exist are looked up, to send their signals"
)
BULK_UPDATE_LOCK = (
    "counts the statements of a bulk_update(): it locks first, the rows or on SQLite the database"
)
UPDATE_SQL = "takes the first statement of an update() to be its UPDATE: the rows are loaded before it"
CREATE = "counts the statements of a bulk_create(): its signals and its INSERT share a transaction"
WRITE_LOCK = "counts statements: on SQLite an operation takes the write lock first"
CREATE_SENDS = "asserts that bulk_create() sends no signals: that it does is what the library is for"
KEYS = "asserts that bulk_create(ignore_conflicts=True) sets no primary key: inserted rows carry theirs here"
SET_CASCADE = "counts the statements of a cascade: the rows that it sets are loaded, to send their signals"
DB_CASCADE = (
    "counts what a delete collects: rows of DB_CASCADE are, to send their signals, and are counted then"
)

ALLOWED: list[Allowed] = [
    Allowed("admin_utils.test_logentry.LogEntryTests.test_log_actions", CREATE_SENDS),
    Allowed(
        "admin_views.test_actions.AdminActionsTest.test_model_admin_default_delete_action",
        WRITE_LOCK,
        databases=SQLITE,
    ),
    Allowed(
        "auth_tests.test_management.CreatePermissionsMultipleDatabasesTests"
        ".test_set_permissions_fk_to_using_parameter",
        WRITE_LOCK,
        databases=SQLITE,
    ),
    Allowed(
        "bulk_create.tests.BulkCreateTests.test_db_default_field_excluded",
        WRITE_LOCK,
        databases=SQLITE,
        django=FROM_6_0,
    ),
    Allowed("bulk_create.tests.BulkCreateTests.test_efficiency", WRITE_LOCK, databases=SQLITE),
    Allowed(
        "bulk_create.tests.BulkCreateTests.test_explicit_batch_size_efficiency", WRITE_LOCK, databases=SQLITE
    ),
    Allowed(
        "bulk_create.tests.BulkCreateTests.test_explicit_batch_size_respects_max_batch_size",
        WRITE_LOCK,
        databases=SQLITE,
    ),
    Allowed("bulk_create.tests.BulkCreateTests.test_ignore_conflicts_ignore", KEYS),
    Allowed(
        "bulk_create.tests.BulkCreateTests.test_max_batch_size",
        WRITE_LOCK,
        databases=SQLITE,
        django=FROM_6_0,
    ),
    Allowed(
        "bulk_create.tests.BulkCreateTests.test_non_auto_increment_pk_efficiency",
        WRITE_LOCK,
        databases=SQLITE,
    ),
    Allowed(
        "bulk_create.tests.BulkCreateTests.test_set_pk_and_insert_single_item", WRITE_LOCK, databases=SQLITE
    ),
    Allowed(
        "bulk_create.tests.BulkCreateTests.test_set_pk_and_query_efficiency", WRITE_LOCK, databases=SQLITE
    ),
    Allowed(
        "bulk_create.tests.BulkCreateTransactionTests.test_multiple_batches",
        WRITE_LOCK,
        databases=SQLITE,
        django=FROM_6_0,
    ),
    Allowed(
        "bulk_create.tests.BulkCreateTransactionTests.test_objs_with_and_without_pk",
        WRITE_LOCK,
        databases=SQLITE,
        django=FROM_6_0,
    ),
    Allowed(
        "bulk_create.tests.BulkCreateTransactionTests.test_no_unnecessary_transaction",
        CREATE,
        django=FROM_6_0,
    ),
    Allowed(
        "composite_pk.test_delete.CompositePKDeleteTests.test_delete_tenant_by_pk",
        LISTENED_FIELD,
        databases=MARIADB,
    ),
    Allowed(
        "composite_pk.test_delete.CompositePKDeleteTests.test_delete_user_by_pk",
        LISTENED_FIELD,
        databases=MARIADB,
    ),
    Allowed(
        "contenttypes_tests.test_order_with_respect_to.OrderWithRespectToGFKTests.test_database_routing",
        BULK_UPDATE,
    ),
    Allowed("delete.tests.DeletionTests.test_cannot_defer_constraint_checks", SET_CASCADE, databases=MARIADB),
    Allowed("delete.tests.DeletionTests.test_db_cascade", DB_CASCADE, django=FROM_6_1),
    Allowed("delete.tests.DeletionTests.test_only_referenced_fields_selected", LISTENED_COLUMNS),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_aggregation", LISTENED_DELETE),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_all", LISTENED_DELETE),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_combined_relationships", LISTENED_DELETE),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_fk", LISTENED_DELETE),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_full_match", LISTENED_DELETE),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_inheritance", LISTENED_DELETE),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_instance_set_pk_none", LISTENED_DELETE),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_joined_qs", LISTENED_DELETE),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_large_batch", LISTENED_DELETE),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_m2m", LISTENED_DELETE),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_qs", LISTENED_DELETE),
    Allowed("delete.tests.FastDeleteTests.test_fast_delete_revm2m", LISTENED_DELETE),
    Allowed(
        "delete_regress.tests.DeleteTests.test_self_reference_with_through_m2m_at_second_level",
        LISTENED_DELETE,
    ),
    Allowed("delete_regress.tests.SetQueryCountTests.test_set_querycount", SET_CASCADE),
    Allowed("delete_regress.tests.Ticket19102Tests.test_ticket_19102_annotate", LISTENED_DELETE),
    Allowed("delete_regress.tests.Ticket19102Tests.test_ticket_19102_defer", LISTENED_DELETE),
    Allowed("delete_regress.tests.Ticket19102Tests.test_ticket_19102_extra", LISTENED_DELETE),
    Allowed("delete_regress.tests.Ticket19102Tests.test_ticket_19102_select_related", LISTENED_DELETE),
    Allowed("generic_relations.tests.GenericRelationsTests.test_add_bulk", UPDATE),
    Allowed("many_to_one_null.tests.ManyToOneNullTests.test_add_efficiency", UPDATE),
    Allowed("many_to_one_null.tests.ManyToOneNullTests.test_clear_efficiency", UPDATE),
    Allowed("model_inheritance.tests.ModelInheritanceTests.test_update_parent_filtering", UPDATE_SQL),
    Allowed("modeladmin.tests.ModelAdminTests.test_log_deletions", WRITE_LOCK, databases=SQLITE),
    Allowed("order_with_respect_to.tests.OrderWithRespectToBaseTests.test_database_routing", BULK_UPDATE),
    Allowed("proxy_models.tests.ProxyModelTests.test_proxy_update", UPDATE),
    Allowed("queries.test_bulk_update.BulkUpdateNoteTests.test_batch_size", BULK_UPDATE_LOCK),
    Allowed("queries.test_bulk_update.BulkUpdateNoteTests.test_foreign_keys_do_not_lookup", BULK_UPDATE_LOCK),
    Allowed(
        "queries.test_bulk_update.BulkUpdateNoteTests.test_max_batch_size",
        BULK_UPDATE_LOCK,
        django=FROM_6_0,
    ),
    Allowed("queries.test_bulk_update.BulkUpdateNoteTests.test_multiple_fields", BULK_UPDATE_LOCK),
    Allowed("queries.test_bulk_update.BulkUpdateNoteTests.test_simple", BULK_UPDATE_LOCK),
    Allowed("queries.test_bulk_update.BulkUpdateTests.test_database_routing", BULK_UPDATE_LOCK),
    Allowed("schema.tests.SchemaTests.test_unique", LISTENED_COLUMN),
    Allowed("signals.tests.SignalTests.test_disconnect_in_dispatch", RECEIVERS),
    Allowed(
        "update.tests.MySQLUpdateOrderByTest.test_order_by_update_on_related_field", UPDATE, databases=MARIADB
    ),
]


# It measures how long parsing takes, so on a busy machine it may fail with the library and without.
NOT_COMPARED = frozenset({"serializers.test_deserialization.TestDeserializer.test_crafted_xml_performance"})


def allowed_on(series: str, database: str) -> dict[str, str]:
    """Return test id -> reason for one Django series and one database."""
    return {
        entry.test: entry.reason
        for entry in ALLOWED
        if series in entry.django and database in entry.databases
    }
