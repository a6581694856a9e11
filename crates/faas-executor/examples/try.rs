//! x
use faas_executor::*;
fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some("launcher") {
        return native::launcher::main();
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let n: usize = std::env::args().nth(1).and_then(|x| x.parse().ok()).unwrap_or(1);
        let e = Engine::start(EngineConfig {
            data_dir: "/tmp/faasdata".into(),
            launcher_exe: std::env::current_exe().unwrap(),
            default_runtime: faas_types::RuntimeChoice::Auto,
            default_image: "host".into(),
            max_concurrent: 8,
            max_queued: 8,
            native_slots: 4,
        })
        .await
        .unwrap();
        println!("{}", serde_json::to_string(&e.capabilities().await).unwrap());
        for i in 0..n {
            let t = std::time::Instant::now();
            let r = e
                .execute(ExecuteSpec {
                    request_id: "x".to_string().into(),
                    program: faas_guest_protocol::Program::Shell(
                        std::env::args().nth(3).unwrap_or("true".into()),
                    ),
                    env: vec![],
                    image: None,
                    runtime: faas_types::RuntimeChoice::Auto,
                    working_dir: None,
                    user: None,
                    stdin: None,
                    files: vec![],
                    timeout: std::time::Duration::from_secs(10),
                    limits: sandbox::Limits {
                        memory_bytes: 512 << 20,
                        cpu_millicores: 1000,
                        pids: 256,
                        disk_bytes: std::env::args().nth(2).filter(|x| x == "disk").map(|_| 64 << 20),
                    },
                    network: faas_types::Network::None,
                    max_output_bytes: 1 << 20,
                    labels: Default::default(),
                })
                .await;
            match r {
                Ok(o) => {
                    if i == 0 {
                        println!("{}", String::from_utf8_lossy(&o.stdout));
                    }
                    println!("{:?} {:?}", o.timings, t.elapsed());
                }
                Err(e) => println!("ERR {e}"),
            }
        }
        e.shutdown(std::time::Duration::from_secs(5)).await;
    });
    std::process::ExitCode::SUCCESS
}
