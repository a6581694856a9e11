//! The conformance suite: what an execution promises, on every backend and in images of several kinds.
//!
//! Each test is `BACKEND::LIST::IMAGE::CASE`. What a backend cannot do is said by its capabilities: a case asks them
//! and, where the thing is not there, wants the refusal or the weaker promise that stands in its place. Every test runs
//! in a process of its own, as the user that the backend is for, and at its end nothing may be left.
//!
//! A build with one runtime alone has the tests of that one.
#![cfg(all(target_os = "linux", any(feature = "native", feature = "docker")))]
#![expect(clippy::unwrap_used, reason = "helpers of tests, whose failure is the test's")]

mod backends;
mod cases;
#[cfg(feature = "native")]
mod native;
mod seam;
mod stock;
#[cfg(feature = "native")]
mod store;
mod subject;

use std::ffi::OsStr;
use std::process::ExitCode;

#[cfg(feature = "native")]
use faas_executor::{images::unpack, native::launcher};

macro_rules! shell {
    ($($then:tt)*) => { faas_test_support::conformance_cases! { $($then)* [
        a_string_is_run_by_the_shell_and_an_array_as_it_is
        arguments_arrive_as_they_are
        a_program_is_looked_up_in_the_requests_path
        an_argument_that_the_kernel_does_not_take_is_refused
        exit_codes_are_the_commands
        a_signal_that_ends_the_command_is_told
        what_is_not_found_is_127_and_what_cannot_be_executed_126
        the_requests_environment_wins_and_nothing_of_the_gateways_is_in_it
        the_working_directory_is_the_requests_and_must_exist
        the_user_is_root_unless_another_is_asked_for
        an_unknown_user_or_group_is_refused
        standard_input_arrives_byte_for_byte
        without_standard_input_there_is_its_end_at_once
        standard_input_that_nobody_reads_holds_nobody_up
        stdout_and_stderr_are_apart_and_exact
        output_beyond_its_limit_is_dropped_and_flagged
        a_hundred_mebibytes_of_output_are_bounded_in_memory
        files_are_there_before_the_command
        secrets_are_files_of_the_user_alone_in_memory
        a_file_that_cannot_be_put_is_refused
        a_timeout_kills_all_and_keeps_the_output
        what_is_left_in_the_background_neither_delays_nor_stays
        a_cancelled_execution_leaves_nothing
        a_shutdown_ends_what_runs
        memory_beyond_its_limit_is_taken_from_the_command
        processes_beyond_their_limit_are_refused
        a_fraction_of_a_core_is_enough_to_run
        a_disk_limit_holds_or_is_refused
        there_is_no_network_but_loopback
        egress_is_refused_where_it_is_not_supported
        what_was_used_is_told_where_it_can_be
        the_answer_says_what_ran_where
        each_execution_has_a_sandbox_of_its_own
    ] } };
}

macro_rules! busybox {
    ($($then:tt)*) => { faas_test_support::conformance_cases! { $($then)* [
        the_users_groups_are_the_images
        an_image_that_is_not_there_is_told
        many_small_executions_sixteen_at_a_time
    ] } };
}

macro_rules! defaults {
    ($($then:tt)*) => { faas_test_support::conformance_cases! { $($then)* [
        an_images_environment_directory_and_user_apply
        the_request_goes_before_the_image
    ] } };
}

macro_rules! interpreter {
    ($($then:tt)*) => { faas_test_support::conformance_cases! { $($then)* [
        an_interpreter_runs_and_finds_its_modules
        owners_of_the_images_files_are_the_images
    ] } };
}

macro_rules! language {
    ($($then:tt)*) => { faas_test_support::conformance_cases! { $($then)* [
        threads_and_children_count_as_processes
        an_allocation_beyond_the_limit_fails_or_kills
        sockets_that_no_limit_counts_end_whoever_has_too_many
    ] } };
}

macro_rules! scratch {
    ($($then:tt)*) => { faas_test_support::conformance_cases! { $($then)* [
        a_static_program_runs_without_anything_else
        there_is_no_shell
        users_are_numbers_where_there_is_no_passwd
        a_file_needs_no_directory
        binary_input_and_output_are_exact_and_limited
    ] } };
}

macro_rules! instances {
    ($($then:tt)*) => { faas_test_support::conformance_cases! { $($then)* [
        what_runs_in_the_background_has_output_by_offset_and_an_end
        input_signals_and_cancellation_reach_an_execution
        an_execution_whose_instance_goes_is_lost
        an_execution_tells_whether_it_may_have_begun
        a_terminal_has_a_size_and_is_typed_into
        a_main_command_is_run_again_and_told_in_the_log
    ] } };
}

macro_rules! lasting {
    ($($then:tt)*) => { faas_test_support::conformance_cases! { $($then)* [
        a_kept_sandbox_outlives_a_killed_server
        a_kept_sandbox_outlives_servers_that_end
        a_creation_that_is_given_up_leaves_nothing
        what_was_not_kept_ends_with_its_server
        a_paused_sandbox_is_adopted_paused
        halt_keeps_the_files_and_nothing_in_memory
        it_is_removed_in_every_state_and_twice
        its_end_is_told_and_its_files_stay
        limits_change_while_it_runs
        what_it_uses_is_measured
        a_disk_limit_of_a_lasting_sandbox_holds_or_is_refused
        two_sandboxes_have_files_of_their_own
    ] } };
}

#[cfg(feature = "native")]
macro_rules! lasting_native {
    ($($then:tt)*) => { faas_test_support::conformance_cases! { $($then)* [
        a_killed_launcher_costs_kept_sandboxes_nothing_where_there_are_cgroups
        with_server_and_launcher_killed_it_is_adopted_where_there_are_cgroups
        the_launcher_ends_with_the_last_sandbox_that_it_keeps
        another_host_boot_is_known
        a_process_that_is_not_the_sandboxs_is_left_alone
        ids_that_another_gateway_has_taken_meanwhile_end_it
        what_bears_the_gateways_mark_and_is_nobodys_is_told
    ] } };
}

faas_test_support::conformance_suite! {
    #[cfg(feature = "native")]
    native_rootful => crate::backends::native_rootful {
        instances: host, alpine;
        lasting: host, alpine;
        lasting_native: alpine;
        shell: host, alpine, python;
        busybox: alpine;
        defaults: users;
        interpreter: host, python;
        language: host, python;
        scratch: scratch;
    }
    #[cfg(feature = "native")]
    native_rootless => crate::backends::native_rootless {
        instances: host, alpine;
        lasting: host, alpine;
        lasting_native: alpine;
        shell: host, alpine;
        busybox: alpine;
        defaults: users;
        interpreter: host, python;
        language: host;
        scratch: scratch;
    }
    #[cfg(feature = "native")]
    native_rootless_range => crate::backends::native_rootless_range {
        instances: alpine;
        lasting: alpine;
        lasting_native: alpine;
        shell: alpine;
        busybox: alpine;
        defaults: users;
        interpreter: python;
        scratch: scratch;
    }
    #[cfg(feature = "docker")]
    docker => crate::backends::docker {
        instances: alpine;
        lasting: alpine, python;
        shell: alpine, python;
        busybox: alpine;
        defaults: users;
        interpreter: python;
        language: python;
        scratch: scratch;
    }
}

/// Every case by its name.
fn case(name: &str) -> subject::Case {
    let lists: [&[(&str, subject::Case)]; 9] = [
        instances!(@table cases;),
        lasting!(@table cases;),
        #[cfg(feature = "native")]
        lasting_native!(@table cases;),
        #[cfg(not(feature = "native"))]
        &[],
        shell!(@table cases;),
        busybox!(@table cases;),
        defaults!(@table cases;),
        interpreter!(@table cases;),
        language!(@table cases;),
        scratch!(@table cases;),
    ];
    let found = lists.into_iter().flatten().find(|(own, _)| *own == name);
    found.unwrap_or_else(|| panic!("there is no case {name}")).1
}

/// This program is also the launcher and the unpack process of the backends, and one case of the suite.
fn other_program(arguments: &[&OsStr]) -> Option<ExitCode> {
    match arguments {
        #[cfg(feature = "native")]
        [one] if *one == launcher::ARGUMENT => Some(launcher::main()),
        #[cfg(feature = "native")]
        [one] if *one == unpack::ARGUMENT => Some(unpack::main()),
        [first, rest @ ..] if *first == backends::RUN => Some(backends::run_case(rest)),
        [first, rest @ ..] if *first == seam::SERVE => Some(seam::serve(rest)),
        _ => None,
    }
}

faas_test_support::before_main!(other_program);
