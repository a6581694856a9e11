//! The conformance suite of the store: what it promises, on each database.
//!
//! A test is `DATABASE::cases::store::CASE`. Each has a database of its own, which is gone afterwards. PostgreSQL is the
//! server at `FAAS_TEST_POSTGRES_URL` (`scripts/test-postgres.sh start DIR` starts one).
#![expect(clippy::unwrap_used, reason = "helpers of tests, whose failure is the test's")]

mod cases;
mod restart;
mod subject;
mod writer;

use std::pin::Pin;

use subject::Subject;

macro_rules! cases {
    ($($then:tt)*) => { faas_test_support::conformance_cases! { $($then)* [
        what_is_kept_is_what_was_given
        text_of_all_kinds_is_kept_and_nul_refused
        ids_and_names_are_unique_while_they_are_there
        writers_that_race_lose_nothing
        a_deleted_instance_is_told_from_one_that_never_was
        a_list_is_filtered_by_state_and_labels
        pages_follow_each_other_while_rows_come_and_go
        executions_belong_to_their_instance
        events_are_numbered_in_the_order_in_which_they_appear
        an_event_is_there_if_its_change_is
        events_are_pruned_from_the_oldest_on
        events_are_filtered_by_kind_and_subject
        whoever_waits_for_an_event_is_woken
        one_of_many_gets_a_key
        a_key_is_answered_until_it_is_pruned_or_forgotten
        a_key_whose_end_is_not_known_is_interrupted
        a_key_left_running_is_interrupted_by_a_restart
        a_dropped_call_happened_as_a_whole_or_not_at_all
        what_a_killed_process_was_told_is_there
        a_newer_schema_is_refused
        another_gateways_database_is_refused
    ] } };
}

type Case = (&'static str, fn(Subject) -> Pin<Box<dyn Future<Output = Subject>>>);

const CASES: &[Case] = cases! { @table cases; };

fn run(subject: impl Future<Output = Subject>, case: &str) {
    let (_, case) = CASES.iter().find(|(name, _)| *name == case).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        case(subject.await).await.remove().await;
    });
}

fn sqlite(_: &str, case: &str) {
    run(Subject::sqlite(), case);
}

fn postgres(_: &str, case: &str) {
    faas_test_support::needs!(Postgres);
    run(Subject::postgres(), case);
}

mod suite {
    faas_test_support::conformance_suite! {
        sqlite => super::super::super::super::sqlite { cases: store; }
        postgres => super::super::super::super::postgres { cases: store; }
    }
}

faas_test_support::before_main!(writer::run);
