//! More models than memory: they are swapped in and out by use.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{Folder, Habits, InProcess, LedgerWatch, Rest, Setup, Zipf, grpc, mnist_request};
use modelring_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tonic::transport::Channel;

const MIB: u64 = 1 << 20;
const MODELS: usize = 40;
const LENGTH: Duration = Duration::from_secs(60);

fn name(number: usize) -> String {
    format!("model-{number:02}")
}

fn folder(models: usize) -> Folder {
    let folder = Folder::with_storage();
    for number in 0..models {
        folder.add_mnist(&format!("onnx/{}.onnx", name(number)));
        folder.add_isvc(&name(number), &format!("onnx/{}.onnx", name(number)));
    }
    folder
}

async fn call(client: &mut GrpcInferenceServiceClient<Channel>, model: &str) -> Result<(), tonic::Status> {
    let answer = client.model_infer(mnist_request(model)).await?.into_inner();
    assert_eq!(answer.model_name, model);
    assert_eq!(answer.outputs[0].shape, [1, 10]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_models_share_room_for_ten_and_no_call_fails() {
    let folder = folder(MODELS);
    // Each model turns out a tenth larger than predicted: every load is an overrun of its reservation.
    let setup = Setup {
        capacity: 100 * MIB,
        habits: Habits {
            load_delay: Duration::ZERO,
            load_work: Duration::from_millis(20),
            size: 10 * MIB,
            predicted: 9 * MIB,
        },
        min_churn_age: Duration::ZERO,
    };
    let mesh = InProcess::start(&folder, setup).await;
    let ledger = LedgerWatch::start(mesh.agent_addr).await;
    let client = grpc(mesh.grpc).await;
    let zipf = Zipf::new(MODELS, 0.9);
    let mut random = SmallRng::seed_from_u64(4);
    let calls = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();

    // An open loop whose rate is steered so that loading takes about a third of the machine.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let begin = Instant::now();
    let mut pause = Duration::from_millis(25);
    let (mut steered, mut loading) = (begin, mesh.journal.loading());
    let mut next = tokio::time::Instant::now();
    while begin.elapsed() < LENGTH {
        let model = name(zipf.rank(random.random()));
        let (mut client, done) = (client.clone(), calls.clone());
        tasks.spawn(async move {
            let answer = tokio::time::timeout(Duration::from_secs(30), call(&mut client, &model)).await;
            answer.expect("an answer comes within 30 s").unwrap_or_else(|status| panic!("{model}: {status:?}"));
            done.fetch_add(1, Ordering::Relaxed);
        });
        next += pause;
        tokio::time::sleep_until(next).await;
        if steered.elapsed() > Duration::from_secs(2) {
            let share = (mesh.journal.loading() - loading).as_secs_f64() / steered.elapsed().as_secs_f64() / cpus;
            pause = pause
                .mul_f64((share * 3.0).clamp(0.5, 2.0))
                .clamp(Duration::from_millis(8), Duration::from_millis(100));
            (steered, loading) = (Instant::now(), mesh.journal.loading());
        }
    }
    tasks.join_all().await;
    let share = mesh.journal.loading().as_secs_f64() / begin.elapsed().as_secs_f64() / cpus;
    let (answered, loads) = (calls.load(Ordering::Relaxed), mesh.journal.loads("model-"));
    println!("{answered} calls, {loads} loads, loading took {:.0} % of the machine", share * 100.0);
    assert!(loads > 2 * MODELS, "only {loads} loads: evicted models did not come back");
    mesh.journal.assert_no_call_outside_its_span();
    ledger.assert_rule();

    // When it is quiet every overrun has been evicted away.
    let quiet = async {
        loop {
            match ledger.states().last() {
                Some(state) if state.overrun == 0 && state.reserved == 0 && state.unloading == 0 => break,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(40), quiet).await.expect("every overrun goes back to 0");
    let held = ledger.states().last().map_or(0, |state| state.loaded);
    assert!((80 * MIB..=100 * MIB).contains(&held), "{held} bytes are held");
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_churn_guard_refuses_a_load_that_would_evict_a_young_copy() {
    let folder = folder(3);
    folder.write(
        "settings.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: model-serving-config\ndata:\n  config.yaml: |\n    proxy:\n      \
         placeTimeout: 3s\n",
    );
    let setup = Setup {
        capacity: 20 * MIB,
        habits: Habits { load_delay: Duration::ZERO, load_work: Duration::ZERO, size: 10 * MIB, predicted: 10 * MIB },
        min_churn_age: Duration::from_secs(3600),
    };
    let mesh = InProcess::start(&folder, setup).await;
    let body = || {
        let body = "config/quickstart/requests/example-onnx-mnist-7.json";
        std::fs::read(Folder::checkout().join(body)).expect("it is there")
    };
    // Two fit; whichever comes third is refused.
    let mut answers = Vec::new();
    for number in 0..3 {
        answers.push(Rest::send(mesh.rest, "POST", &format!("/v2/models/{}/infer", name(number)), body()).await);
    }
    let refused: Vec<&Rest> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert_eq!(refused.len(), 1, "{answers:?}");
    assert_eq!((refused[0].status, refused[0].reason()), (503, "NP"), "{}", refused[0].text());
    assert!(refused[0].text().contains("Cache churn threshold exceeded"), "{}", refused[0].text());
    assert!(refused[0].headers.contains_key("retry-after"));
    mesh.stop().await;
}
