package core

import (
	"maps"
	"slices"
	"time"
)

// step is the life of the supervisor: step, save, act; or be killed.
func (w *world) step(evs ...Event) {
	w.steps++
	after, crashes := w.crashHere()
	if stops := slices.ContainsFunc(evs, isRequested) && w.core.shutdown == nil; stops && w.plan.inStop > -2 && !w.crashedInStop {
		after, crashes, w.crashedInStop = w.plan.inStop, true, true
	}
	var actions []Action
	var loads []Load
	aftermath, row := w.aftermath.clone(), maps.Clone(w.healthd.row)
	for _, ev := range evs {
		before := len(actions)
		r, isResult := ev.(ProbeResult)
		was := w.recordOf(r.Run)
		ack, isAck := ev.(GateAck)
		wasUp := w.wantedBy(ack.Proxy)
		if l, ok := ev.(Load); ok && !w.core.ShuttingDown() {
			loads = append(loads, l)
			actions = append(actions, w.checkLoad(l)...)
		} else {
			actions = append(actions, w.core.Step(w.now, ev)...)
		}
		if isResult {
			w.checkResult(r, was, w.recordOf(r.Run))
		}
		if isAck {
			w.checkIdleStop(ack, wasUp)
		}
		w.checkStep(ev, actions[before:])
	}
	changes := w.core.Changes()
	if crashes && after < 0 {
		w.note("-- crash before the save --")
		w.aftermath, w.healthd.row = aftermath, row
		var said, again []Event
		for _, ev := range evs {
			switch ev.(type) {
			case Ready, Notify: // still in the socket
				said = append(said, ev)
			case Boot, Wish, Kill, Load, Stop, Requested, SetProxies: // said again by who said it
				again = append(again, ev)
			case Spawned, SpawnFailed, Exited, Emptied, Tick, HelperUp, HelperDown, ProbeResult, Demand, Idle, GateAck: // found out
			}
		}
		w.recover(said...)
		for _, ev := range again {
			w.step(ev)
		}
		return
	}
	for _, l := range loads {
		w.disk.configure(l.Services)
	}
	w.disk.save(changes)
	if d := w.disk.differs(w.core); d != "" {
		w.fail("after %T%v: %s", evs[0], evs[0], d)
	}
	if crashes {
		actions = actions[:min(after, len(actions))]
	}
	again := w.perform(actions)
	if crashes {
		for _, ev := range evs {
			if isRequested(ev) && after == 0 { // not acknowledged: pid1 says it again
				again = append(again, ev)
			}
		}
		w.note("-- crash --")
		w.recover()
	} else {
		w.healthd.unacked = nil
		w.checkProbes()
		w.checkGates()
	}
	for _, ev := range again {
		w.step(ev)
	}
}

func isRequested(ev Event) bool { _, is := ev.(Requested); return is }

func (w *world) crashHere() (after int, ok bool) {
	for i, c := range w.crashes {
		if c.step == w.steps {
			w.crashes = slices.Delete(w.crashes, i, i+1)
			return c.after, true
		}
	}
	return 0, false
}

func (w *world) recover(missed ...Event) {
	w.halt = nil
	w.proxyd.linked = 1 << 62 // no time soon
	w.unheard()
	w.now += w.plan.down
	if w.plan.down > 0 { // what happened meanwhile is found in pid1's table
		for h := w.meanwhile(); h != nil; h = w.meanwhile() {
			for _, ev := range w.apply(w.take(h)) {
				switch ev.(type) {
				case Ready, Notify:
					missed = append(missed, ev)
				}
			}
		}
	}
	facts := w.facts()
	for i := range facts {
		facts[i].Signals %= 1000
	}
	o := w.plan.opts
	w.recoveries++
	// A shutdown that is lost would be asked for again.
	lost := w.plan.loses && w.recoveries%3 == 0 && w.core.shutdown == nil
	if lost {
		w.note("-- the saved state is lost --")
		w.disk = store{}
		w.disk.configure(w.configured)
		clear(w.healthd.row) // nobody remembers what the probes have found
		o.FirstRun = RunID(w.recoveries * 1000)
		missed = append([]Event{Boot{}}, missed...)
	}
	g, records := w.disk.load()
	if g.Shutdown == nil {
		w.stopAt = 0
	}
	var actions []Action
	var adopted Adopted
	w.core, actions, adopted = Recover(w.now, maps.Clone(w.disk.specs), o, g, records, facts, missed...)
	if lost {
		w.checkAdopted(facts, actions, adopted)
	} else if adopted.Late {
		w.fail("the saved state is older than the last orders to pid1")
	}
	w.checkStep(Tick{}, actions)
	w.disk.save(w.core.Changes())
	if d := w.disk.differs(w.core); d != "" {
		w.fail("after recovery: %s", d)
	}
	for _, ev := range w.perform(actions) {
		w.step(ev)
	}
	if len(w.proxyd.proxies) > 0 {
		w.unheard()
		gates := w.proxyd.gates
		w.proxyd.gates = map[string]*gate{} // which have not found the new supervisor yet
		w.step(SetProxies{w.proxyd.proxies})
		if w.proxyd.gates = gates; w.proxyd.up {
			w.proxyd.linked = w.now
			w.step(HelperUp{HelperProxy})
		}
	}
	if w.healthd.up { // it finds the new supervisor, and tells again what was not acknowledged
		w.step(append([]Event{HelperUp{HelperHealth}}, w.healthd.unacked...)...)
	}
}

// perform does what was ordered and checks whether it may be done. It returns
// what the supervisor is told at once.
func (w *world) perform(actions []Action) (at []Event) {
	for _, a := range actions {
		w.note("%s", w.trace(a))
		switch a := a.(type) {
		case Spawn:
			if known := w.runs[a.Run]; known != nil {
				continue // answered from the table
			}
			g, _ := w.disk.load()
			var r Record
			decode(w.disk.records[a.Service.Name], &r)
			if a.Run > g.LastRun || !slices.ContainsFunc(r.Runs, func(o *Run) bool { return o.ID == a.Run }) {
				w.fail("run %d of %s is spawned and was not saved", a.Run, a.Service.Name)
			}
			w.checkLeft(a)
			w.keeper.perform(a)
			p := w.runs[a.Run]
			if w.failed[a.Run] {
				delete(w.runs, a.Run)
				at = append(at, w.spawnFailed(p))
				continue
			}
			if _, ok := w.number[a.Run]; ok {
				w.fail("run %d is used for two spawns", a.Run)
			}
			key := procName(p.service, p.role)
			w.ordinals[key]++
			w.number[a.Run] = w.ordinals[key]
			if w.bad(p, "spawn", 10) {
				w.happen(w.ms(p, "spawned", 60), spawnFails, p)
			} else {
				w.happen(w.ms(p, "spawned", 60), spawnDone, p)
			}
			continue
		case Signal:
			if p := w.runs[a.Run]; p != nil && p.pid != 0 {
				w.react(p, a.Signal)
			}
		case Halt:
			if limit := w.stopAt + w.within + afterKill + w.plan.down*Time(len(w.plan.crashes)+1); w.now > limit {
				w.fail("zinit ends too late, the time was over at %v", time.Duration(limit-epoch))
			}
		case SetProbes:
			w.setProbes(a.Probes)
		case SetProbe:
			w.setProbe(a.Probe)
		case DropProbe:
			w.dropProbe(a.Service)
		case SetGate:
			w.setGate(a)
		case TellProxies:
			w.tellAll()
		case Forget, SetMain, Shell, Changed, HealthChanged:
		}
		if err := w.keeper.perform(a); err != nil {
			w.fail("%v", err)
		}
	}
	return at
}

// wantedBy says that the service of a proxy is wished for.
func (w *world) wantedBy(proxy string) bool {
	p := w.core.proxies[proxy]
	if p == nil {
		return false
	}
	s := w.core.services[p.spec.Service]
	return s != nil && s.Up
}

// recordOf is the record of the service of a run.
func (w *world) recordOf(id RunID) Record {
	if s, _ := w.core.lookup(id); s != nil {
		return s.copy()
	}
	return Record{}
}
