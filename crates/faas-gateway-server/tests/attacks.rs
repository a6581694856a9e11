//! Attacks from inside of sandboxes, made by the program of the crate `faas-attacker` through a real gateway.
#![expect(clippy::unwrap_used, reason = "what the helpers of a test cannot do fails the test")]

#[path = "attacks/agent.rs"]
mod agent;
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

use faas_test_support::needs;

macro_rules! groups {
    ($($test:ident: $group:literal,)+) => {
        $(
            #[test]
            fn $test() {
                needs!(Root);
                judge::judge($group);
            }
        )+

        #[test]
        fn every_group_of_attempts_has_a_test() {
            // That of neighbours has one in `neighbours.rs`.
            let mut tested = vec![$($group,)+ "neighbour"];
            tested.sort_unstable();
            assert_eq!(tested, faas_attacker::GROUPS);
        }
    };
}

groups! {
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
