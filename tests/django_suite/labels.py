"""Which labels of Django's tests are run where."""

from __future__ import annotations

# Queries, updates, deletion, expressions, relations, inheritance, transactions, signals, async. On MariaDB
# only these are run, because the other labels hardly touch what the library changes.
ORM = """
    aggregation aggregation_regress annotations async basic bulk_create composite_pk constraints
    contenttypes_tests custom_columns custom_lookups custom_managers custom_methods custom_pk dates
    datetimes db_functions defer defer_regress delete delete_regress distinct_on_fields empty
    expressions expressions_case expressions_window extra_regress field_defaults field_subclassing
    filtered_relation fixtures fixtures_model_package fixtures_regress force_insert_update
    foreign_object from_db_value generic_inline_admin generic_relations generic_relations_regress
    get_earliest_or_latest get_object_or_404 get_or_create indexes known_related_objects lookup
    m2m_and_m2o m2m_intermediary m2m_multiple m2m_recursive m2m_regress m2m_signals m2m_through
    m2m_through_regress m2o_recursive managers_regress many_to_many many_to_one many_to_one_null
    max_lengths model_fields model_indexes model_inheritance model_inheritance_regress model_options
    model_package model_regress model_utils multiple_database mutually_referential nested_foreign_keys
    null_fk null_fk_ordering null_queries one_to_one or_lookups order_with_respect_to ordering
    prefetch_related properties proxy_model_inheritance proxy_models queries queryset_pickle raw_query
    reserved_names reverse_lookup save_delete_hooks select_for_update select_related
    select_related_onetoone select_related_regress serializers signals string_lookup swappable_models
    timezones transaction_hooks transactions unmanaged_models update update_only_fields xor_lookups
"""

# What CI runs beside them: database backends, and Django's own users of the ORM.
BESIDES = """
    backends model_forms model_formsets sessions_tests test_utils
"""

SUBSET = sorted([*ORM.split(), *BESIDES.split()])


def labels_for(database: str, everything: list[str]) -> list[str]:
    """Return the labels of a whole run on this database; not every Django has all of them."""
    return [label for label in everything if label in ORM.split()] if database == "mariadb" else everything
