# bash completion of mcserver, made by `mcserver pages bash`
_mcserver() {
    local cur prev
    cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    if [ "$prev" = "=" ]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
    if [ "$cur" = "=" ]; then cur= prev=${COMP_WORDS[COMP_CWORD-1]}; fi
    [ "$COMP_CWORD" -eq 1 ] || case ${COMP_WORDS[1]} in
        pages) COMPREPLY=($(compgen -W "man bash zsh fish options" -- "$cur")); compopt -o default; return ;;
        top) COMPREPLY=($(compgen -W "-h --help --timeout --tls --ca --cert --key --any-certificate --user-file -i --interval -n --count --no-watch" -- "$cur")); compopt -o default; return ;;
        ping) COMPREPLY=($(compgen -W "-h --help --timeout --tls --ca --cert --key --any-certificate --user-file -c --count -i --interval" -- "$cur")); compopt -o default; return ;;
        stats) COMPREPLY=($(compgen -W "-h --help --timeout --tls --ca --cert --key --any-certificate --user-file --json --changes --only" -- "$cur")); compopt -o default; return ;;
        dump) COMPREPLY=($(compgen -W "-h --help --timeout --tls --ca --cert --key --any-certificate --user-file --prefix" -- "$cur")); compopt -o default; return ;;
        load) COMPREPLY=($(compgen -W "-h --help --timeout --tls --ca --cert --key --any-certificate --user-file --add" -- "$cur")); compopt -o default; return ;;
        bench) COMPREPLY=($(compgen -W "-h --help --timeout --tls --ca --cert --key --any-certificate --user-file --seconds --size" -- "$cur")); compopt -o default; return ;;
    esac
    case $prev in
        -s|--unix-socket|-e|--memory-file|-P|--pidfile|-Y|--auth-file|--config|--take-over|--zk-auth-file|--zk-ca|--zk-cert|--zk-key) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        -B|--protocol) COMPREPLY=($(compgen -W "auto ascii binary" -- "$cur")); return ;;
        --loop) COMPREPLY=($(compgen -W "uvloop asyncio" -- "$cur")); return ;;
        --on-stale) COMPREPLY=($(compgen -W "miss error serve" -- "$cur")); return ;;
        --ack) COMPREPLY=($(compgen -W "async committed applied" -- "$cur")); return ;;
        --join) COMPREPLY=($(compgen -W "wait serve" -- "$cur")); return ;;
        --zk-acl) COMPREPLY=($(compgen -W "creator read open" -- "$cur")); return ;;
        -o|--extended)
            local before=""
            case $cur in *,*) before=${cur%,*},; cur=${cur##*,} ;; esac
            COMPREPLY=($(compgen -P "$before" -W "maxconns_fast no_maxconns_fast hashpower= no_hashexpand idle_timeout= tail_repair_time= hash_algorithm= lru_crawler no_lru_crawler lru_crawler_sleep= lru_crawler_tocrawl= lru_maintainer no_lru_maintainer hot_lru_pct= warm_lru_pct= hot_max_factor= warm_max_factor= temporary_ttl= slab_reassign no_slab_reassign slab_automove no_slab_automove slab_automove_ratio= slab_automove_window= slab_sizes= slab_chunk_max= no_chunked_items room_for= track_sizes watcher_logbuf_size= worker_logbuf_size= read_buf_mem_limit= ssl_chain_cert= ssl_key= ssl_verify_mode= ssl_keyformat= ssl_ciphers= ssl_ca_cert= ssl_wbuf_size= ssl_session_cache ssl_kernel_tls ssl_min_version= ssl_handshake_timeout= resp_obj_mem_limit inline_ascii_resp no_inline_ascii_resp modern no_modern drop_privileges no_drop_privileges relaxed_privileges sock_cookie_id=" -- "$cur")); compopt -o nospace; return ;;
        -p|--port|-U|--udp-port|-s|--unix-socket|-a|--unix-mask|-l|--listen|-u|--user|-m|--memory-limit|-c|--conn-limit|-e|--memory-file|-P|--pidfile|-f|--slab-growth-factor|-n|--slab-min-size|-D|-t|--threads|-R|--max-reqs-per-event|-b|--listen-backlog|-B|--protocol|-Y|--auth-file|-I|--max-item-size|-N|--napi-ids|-o|--extended|--config|--loop|--metrics|--metrics-name|--take-over|--zookeeper|--cluster-path|--node-name|--advertise|--zk-session-timeout|--max-stale|--on-stale|--ack|--ack-timeout|--join|--hold-off|--soft|--refresh|--refresh-every|--broadcast-writes|--lock-writes|--zk-auth-file|--zk-writes|--zk-acl|--zk-ca|--zk-cert|--zk-key) return ;;
    esac
    case $cur in
        -*) COMPREPLY=($(compgen -W "-p --port -U --udp-port -s --unix-socket -a --unix-mask -A --enable-shutdown -l --listen -d --daemon -r --enable-coredumps -u --user -m --memory-limit -M --disable-evictions -c --conn-limit -e --memory-file -k --lock-memory -v --verbose -h --help -i --license -V --version -P --pidfile -f --slab-growth-factor -n --slab-min-size -L --enable-largepages -D -t --threads -R --max-reqs-per-event -C --disable-cas -b --listen-backlog -B --protocol -S --enable-sasl -Y --auth-file -I --max-item-size -F --disable-flush-all -X --disable-dumping -W --disable-watch -Z --enable-ssl -N --napi-ids -o --extended --config --loop --metrics --metrics-name --log-json --take-over --ephemeral --debug-clock --zookeeper --cluster-path --node-name --advertise --zk-session-timeout --max-stale --on-stale --ack --ack-timeout --join --hold-off --soft --refresh --refresh-every --broadcast-writes --lock-writes --zk-auth-file --zk-writes --zk-acl --disable-cluster-leave --disable-cluster-refresh --zk-ca --zk-cert --zk-key" -- "$cur")) ;;
        *) [ "$COMP_CWORD" -ne 1 ] || COMPREPLY=($(compgen -W "config top ping stats dump load bench pages" -- "$cur")) ;;
    esac
}
complete -F _mcserver mcserver
