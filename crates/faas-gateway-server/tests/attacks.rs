//! Attacks from inside of sandboxes, made by the program of the crate `faas-attacker` through a real gateway: as root and
//! as an ordinary user with one id and with a range of them, in the image `host` and in one of the store.
#![expect(clippy::unwrap_used, reason = "what the helpers of a test cannot do fails the test")]

#[path = "attacks/agent.rs"]
mod agent;
#[path = "attacks/files.rs"]
mod files;
#[path = "attacks/held.rs"]
mod held;
#[path = "attacks/judge.rs"]
mod judge;
#[path = "attacks/known.rs"]
mod known;
#[path = "attacks/neighbours.rs"]
mod neighbours;
#[path = "attacks/scene.rs"]
mod scene;
#[path = "attacks/standing.rs"]
mod standing;

/// Hands on every group of attempts but `neighbour`, which has a test in `neighbours.rs`.
macro_rules! groups {
    ($then:ident $($standing:ident)?) => {
        $then! { $($standing)?
            devices_cannot_be_made_or_reached: "devices",
            files_of_the_host_cannot_be_read_or_changed: "files",
            nobody_becomes_more_than_a_containers_root: "identity",
            nothing_of_the_gateways_start_is_inherited: "inherited",
            system_calls_beyond_a_sandbox_are_refused: "kernel",
            mounts_cannot_be_changed: "mounts",
            namespaces_cannot_be_shared_or_made: "namespaces",
            the_network_of_the_host_cannot_be_reached: "network",
            settings_of_the_kernel_cannot_be_read_or_changed: "proc",
            processes_outside_cannot_be_reached: "processes",
        }
    };
}

macro_rules! judged {
    ($standing:ident $($test:ident: $group:literal,)+) => {
        $(
            #[test]
            fn $test() {
                let standing = crate::standing::Standing::$standing;
                if !standing.is_missing(concat!(module_path!(), "::", stringify!($test))) {
                    crate::judge::judge(standing, $group);
                }
            }
        )+
    };
}

macro_rules! tests {
    ($standing:ident $module:ident: $($(#[$attribute:meta])* $test:ident)+) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $test() {
                let standing = crate::standing::Standing::$standing;
                if !standing.is_missing(concat!(module_path!(), "::", stringify!($test))) {
                    crate::$module::$test(standing);
                }
            }
        )+
    };
}

macro_rules! everything {
    ($standing:ident) => {
        groups! { judged $standing }
        tests! { $standing agent:
            whoever_ends_the_agent_loses_its_own_sandbox_alone
            #[cfg(target_arch = "x86_64")]
            a_forged_answer_is_believed_of_the_forger_alone
            #[cfg(target_arch = "x86_64")]
            a_forged_error_writes_no_line_of_the_log
            the_agent_answers_whoever_is_outside
            input_files_stay_inside
            a_strict_umask_of_the_starter_does_not_matter
        }
        tests! { $standing files: all_files_are_the_instances_own }
        tests! { $standing neighbours:
            nothing_of_another_sandbox_can_be_reached
            sandboxes_of_two_gateways_have_ids_of_their_own
            what_one_sandbox_takes_up_the_others_and_the_host_still_have
            what_the_kernel_keeps_for_a_sandbox_is_on_its_account
            harm_stays_with_whoever_does_it
            a_full_file_system_is_an_error_and_no_more_than_was_given
            locks_on_what_all_share_are_each_sandboxs_own
            nobody_is_watched_over_what_all_share
        }
    };
}

mod rootful {
    everything! { Rootful }
}

/// Everything again: there are no cgroups, and no ids but the user's own.
mod one_id {
    everything! { OneId }
}

/// What ids make a difference to. The rest is made as with one id: without cgroups, with a tmpfs for a disk, by the same
/// agent.
mod range {
    groups! { judged Range }
    tests! { Range agent:
        the_agent_answers_whoever_is_outside
        input_files_stay_inside
        a_strict_umask_of_the_starter_does_not_matter
    }
    tests! { Range files: all_files_are_the_instances_own }
    tests! { Range neighbours:
        nothing_of_another_sandbox_can_be_reached
        sandboxes_of_two_gateways_have_ids_of_their_own
        what_one_sandbox_takes_up_the_others_and_the_host_still_have
        harm_stays_with_whoever_does_it
        locks_on_what_all_share_are_each_sandboxs_own
        nobody_is_watched_over_what_all_share
    }
}

/// What files and mounts make a difference to. Limits, ids and the agent are those of every sandbox of root.
mod in_image {
    groups! { judged InImage }
    tests! { InImage agent:
        the_agent_answers_whoever_is_outside
        input_files_stay_inside
        a_strict_umask_of_the_starter_does_not_matter
    }
    tests! { InImage files: all_files_are_the_instances_own }
    tests! { InImage neighbours:
        nothing_of_another_sandbox_can_be_reached
        a_full_file_system_is_an_error_and_no_more_than_was_given
        locks_on_what_all_share_are_each_sandboxs_own
        nobody_is_watched_over_what_all_share
    }
}

#[test]
fn every_group_of_attempts_has_a_test() {
    macro_rules! names {
        ($($test:ident: $group:literal,)+) => { vec![$($group),+] };
    }
    let mut tested = groups!(names);
    tested.push("neighbour");
    tested.sort_unstable();
    assert_eq!(tested, faas_attacker::GROUPS);
}
