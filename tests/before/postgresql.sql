CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.blob (
    hash character varying(64) NOT NULL,
    size bigint NOT NULL,
    root text,
    data bytea
);
CREATE TABLE public.dataset (
    id bigint NOT NULL,
    name text NOT NULL,
    version_id bigint,
    made timestamp with time zone NOT NULL
);
CREATE SEQUENCE public.dataset_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.dataset_id_seq OWNED BY public.dataset.id;
CREATE TABLE public.dataset_version (
    id bigint NOT NULL,
    dataset_id bigint NOT NULL,
    number integer NOT NULL,
    hash character varying(64) NOT NULL,
    parent_id bigint,
    classes json NOT NULL,
    glyphs boolean NOT NULL,
    images integer NOT NULL,
    event_id bigint NOT NULL,
    who text NOT NULL,
    made timestamp with time zone NOT NULL,
    message text
);
CREATE SEQUENCE public.dataset_version_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.dataset_version_id_seq OWNED BY public.dataset_version.id;
CREATE TABLE public.label_event (
    id bigint NOT NULL,
    sample_id bigint NOT NULL,
    old text,
    new text,
    who text NOT NULL,
    at timestamp with time zone NOT NULL,
    origin character varying(16) NOT NULL,
    why text,
    undoes bigint
);
CREATE SEQUENCE public.label_event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.label_event_id_seq OWNED BY public.label_event.id;
CREATE TABLE public.sample (
    id bigint NOT NULL,
    dataset_id bigint NOT NULL,
    key text NOT NULL,
    blob character varying(64) NOT NULL,
    width integer NOT NULL,
    height integer NOT NULL,
    mode character varying(16) NOT NULL
);
CREATE SEQUENCE public.sample_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.sample_id_seq OWNED BY public.sample.id;
CREATE TABLE public.version_item (
    version_id bigint NOT NULL,
    sample_id bigint NOT NULL,
    blob character varying(64) NOT NULL,
    label text NOT NULL,
    split character varying(8),
    item_group text
);
ALTER TABLE ONLY public.dataset ALTER COLUMN id SET DEFAULT nextval('public.dataset_id_seq'::regclass);
ALTER TABLE ONLY public.dataset_version ALTER COLUMN id SET DEFAULT nextval('public.dataset_version_id_seq'::regclass);
ALTER TABLE ONLY public.label_event ALTER COLUMN id SET DEFAULT nextval('public.label_event_id_seq'::regclass);
ALTER TABLE ONLY public.sample ALTER COLUMN id SET DEFAULT nextval('public.sample_id_seq'::regclass);
INSERT INTO public.alembic_version VALUES ('0001');
INSERT INTO public.blob VALUES ('51aa085e49d21c7ab59f901f7d58c2fa38cc1331e05ee22dc155f84ac7876e55', 86, NULL, '\x89504e470d0a1a0a0000000d49484452000000040000000408000000008c9ac1a20000001d49444154789c638c5376106738f78a6f1153d09b53f719beefe17701004994083115fe868c0000000049454e44ae426082');
INSERT INTO public.blob VALUES ('6c244d50d042b0b006189409fd5403950ad677a2f0a91ae037d9547f4810347e', 85, NULL, '\x89504e470d0a1a0a0000000d49484452000000040000000408000000008c9ac1a20000001c49444154789c63b00ab8abcd62cb14b284e5da39956b2cdadc81f6003fe7063ae17a71910000000049454e44ae426082');
INSERT INTO public.blob VALUES ('8b0df971016731c1023a1a946f73f5cdd6769413314c56378567c89198ad5c2e', 85, NULL, '\x89504e470d0a1a0a0000000d49484452000000040000000408000000008c9ac1a20000001c49444154789c63ac33b69eccf4e964bc34d31579b35826a9f57687004744070b396385d30000000049454e44ae426082');
INSERT INTO public.blob VALUES ('cbc73dee14eaee08a676879f4ad590bba0f600a0deff7617b720a764bdf547fe', 86, NULL, '\x89504e470d0a1a0a0000000d49484452000000040000000408000000008c9ac1a20000001d49444154789c63f47e2dc0c6784ce4eb0396937a6ff7b2bc5076f50200513508419d4c1e180000000049454e44ae426082');
INSERT INTO public.blob VALUES ('d759a57f33b04964457ca6c7620e58461e0a0a7989ba3ed459221fd516891d70', 86, NULL, '\x89504e470d0a1a0a0000000d49484452000000040000000408000000008c9ac1a20000001d49444154789c63dc7720f628c33306ad2e26b67dda2c0c6ccfe3df01004eb1076b49c290490000000049454e44ae426082');
INSERT INTO public.blob VALUES ('fe22782d55858e415f3f7c74f996e84b8cd0caff38e065ba482ac395bba6af9a', 86, NULL, '\x89504e470d0a1a0a0000000d49484452000000040000000408000000008c9ac1a20000001d49444154789c63d8fefc8c2fcbc750873d0c32ef1d8518b6aa593103005b760774a055ceef0000000049454e44ae426082');
INSERT INTO public.dataset VALUES (1, 'photos', 2, '2026-11-28 13:50:45.430655+00');
INSERT INTO public.dataset_version VALUES (1, 1, 1, '6718e876c393584aee0a632501946d53ffffecaa07453c37193c2327eb796b77', NULL, '["cat", "dog"]', false, 6, 6, 'ann', '2026-11-28 13:50:46.260766+00', 'as they came');
INSERT INTO public.dataset_version VALUES (2, 1, 2, '88a5542d1bb5e7e9db7337e5ef661d77a1e47de0a0d847deca7db17b9935990c', 1, '["cat", "dog"]', false, 6, 7, 'ann', '2026-11-28 13:50:46.496765+00', 'after a look');
INSERT INTO public.label_event VALUES (1, 1, NULL, 'cat', 'ann', '2026-11-28 13:50:45.724042+00', 'given', NULL, NULL);
INSERT INTO public.label_event VALUES (2, 2, NULL, 'cat', 'ann', '2026-11-28 13:50:45.724051+00', 'given', NULL, NULL);
INSERT INTO public.label_event VALUES (3, 3, NULL, 'cat', 'ann', '2026-11-28 13:50:45.724052+00', 'given', NULL, NULL);
INSERT INTO public.label_event VALUES (4, 4, NULL, 'dog', 'ann', '2026-11-28 13:50:45.724054+00', 'given', NULL, NULL);
INSERT INTO public.label_event VALUES (5, 5, NULL, 'dog', 'ann', '2026-11-28 13:50:45.724055+00', 'given', NULL, NULL);
INSERT INTO public.label_event VALUES (6, 6, NULL, 'dog', 'ann', '2026-11-28 13:50:45.724056+00', 'given', NULL, NULL);
INSERT INTO public.label_event VALUES (7, 1, 'cat', 'dog', 'bob', '2026-11-28 13:50:46.38681+00', 'correction', 'it barks', NULL);
INSERT INTO public.sample VALUES (1, 1, 'cat/1.png', 'fe22782d55858e415f3f7c74f996e84b8cd0caff38e065ba482ac395bba6af9a', 4, 4, 'L');
INSERT INTO public.sample VALUES (2, 1, 'cat/3.png', '8b0df971016731c1023a1a946f73f5cdd6769413314c56378567c89198ad5c2e', 4, 4, 'L');
INSERT INTO public.sample VALUES (3, 1, 'cat/5.png', 'cbc73dee14eaee08a676879f4ad590bba0f600a0deff7617b720a764bdf547fe', 4, 4, 'L');
INSERT INTO public.sample VALUES (4, 1, 'dog/0.png', '51aa085e49d21c7ab59f901f7d58c2fa38cc1331e05ee22dc155f84ac7876e55', 4, 4, 'L');
INSERT INTO public.sample VALUES (5, 1, 'dog/2.png', '6c244d50d042b0b006189409fd5403950ad677a2f0a91ae037d9547f4810347e', 4, 4, 'L');
INSERT INTO public.sample VALUES (6, 1, 'dog/4.png', 'd759a57f33b04964457ca6c7620e58461e0a0a7989ba3ed459221fd516891d70', 4, 4, 'L');
INSERT INTO public.version_item VALUES (1, 1, 'fe22782d55858e415f3f7c74f996e84b8cd0caff38e065ba482ac395bba6af9a', 'cat', NULL, NULL);
INSERT INTO public.version_item VALUES (1, 2, '8b0df971016731c1023a1a946f73f5cdd6769413314c56378567c89198ad5c2e', 'cat', NULL, NULL);
INSERT INTO public.version_item VALUES (1, 3, 'cbc73dee14eaee08a676879f4ad590bba0f600a0deff7617b720a764bdf547fe', 'cat', NULL, NULL);
INSERT INTO public.version_item VALUES (1, 4, '51aa085e49d21c7ab59f901f7d58c2fa38cc1331e05ee22dc155f84ac7876e55', 'dog', NULL, NULL);
INSERT INTO public.version_item VALUES (1, 5, '6c244d50d042b0b006189409fd5403950ad677a2f0a91ae037d9547f4810347e', 'dog', NULL, NULL);
INSERT INTO public.version_item VALUES (1, 6, 'd759a57f33b04964457ca6c7620e58461e0a0a7989ba3ed459221fd516891d70', 'dog', NULL, NULL);
INSERT INTO public.version_item VALUES (2, 1, 'fe22782d55858e415f3f7c74f996e84b8cd0caff38e065ba482ac395bba6af9a', 'dog', NULL, NULL);
INSERT INTO public.version_item VALUES (2, 2, '8b0df971016731c1023a1a946f73f5cdd6769413314c56378567c89198ad5c2e', 'cat', NULL, NULL);
INSERT INTO public.version_item VALUES (2, 3, 'cbc73dee14eaee08a676879f4ad590bba0f600a0deff7617b720a764bdf547fe', 'cat', NULL, NULL);
INSERT INTO public.version_item VALUES (2, 4, '51aa085e49d21c7ab59f901f7d58c2fa38cc1331e05ee22dc155f84ac7876e55', 'dog', NULL, NULL);
INSERT INTO public.version_item VALUES (2, 5, '6c244d50d042b0b006189409fd5403950ad677a2f0a91ae037d9547f4810347e', 'dog', NULL, NULL);
INSERT INTO public.version_item VALUES (2, 6, 'd759a57f33b04964457ca6c7620e58461e0a0a7989ba3ed459221fd516891d70', 'dog', NULL, NULL);
SELECT pg_catalog.setval('public.dataset_id_seq', 1, true);
SELECT pg_catalog.setval('public.dataset_version_id_seq', 2, true);
SELECT pg_catalog.setval('public.label_event_id_seq', 7, true);
SELECT pg_catalog.setval('public.sample_id_seq', 6, true);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.blob
    ADD CONSTRAINT pk_blob PRIMARY KEY (hash);
ALTER TABLE ONLY public.dataset
    ADD CONSTRAINT pk_dataset PRIMARY KEY (id);
ALTER TABLE ONLY public.dataset_version
    ADD CONSTRAINT pk_dataset_version PRIMARY KEY (id);
ALTER TABLE ONLY public.label_event
    ADD CONSTRAINT pk_label_event PRIMARY KEY (id);
ALTER TABLE ONLY public.sample
    ADD CONSTRAINT pk_sample PRIMARY KEY (id);
ALTER TABLE ONLY public.version_item
    ADD CONSTRAINT pk_version_item PRIMARY KEY (version_id, sample_id);
ALTER TABLE ONLY public.dataset
    ADD CONSTRAINT uq_dataset_name UNIQUE (name);
ALTER TABLE ONLY public.dataset_version
    ADD CONSTRAINT uq_dataset_version_dataset_id_hash UNIQUE (dataset_id, hash);
ALTER TABLE ONLY public.dataset_version
    ADD CONSTRAINT uq_dataset_version_dataset_id_number UNIQUE (dataset_id, number);
ALTER TABLE ONLY public.sample
    ADD CONSTRAINT uq_sample_dataset_id_key UNIQUE (dataset_id, key);
CREATE INDEX ix_label_event_sample_id ON public.label_event USING btree (sample_id);
CREATE INDEX ix_sample_blob ON public.sample USING btree (blob);
ALTER TABLE ONLY public.dataset_version
    ADD CONSTRAINT fk_dataset_version_dataset_id FOREIGN KEY (dataset_id) REFERENCES public.dataset(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.label_event
    ADD CONSTRAINT fk_label_event_sample_id FOREIGN KEY (sample_id) REFERENCES public.sample(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.sample
    ADD CONSTRAINT fk_sample_blob FOREIGN KEY (blob) REFERENCES public.blob(hash);
ALTER TABLE ONLY public.sample
    ADD CONSTRAINT fk_sample_dataset_id FOREIGN KEY (dataset_id) REFERENCES public.dataset(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.version_item
    ADD CONSTRAINT fk_version_item_blob FOREIGN KEY (blob) REFERENCES public.blob(hash);
ALTER TABLE ONLY public.version_item
    ADD CONSTRAINT fk_version_item_sample_id FOREIGN KEY (sample_id) REFERENCES public.sample(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.version_item
    ADD CONSTRAINT fk_version_item_version_id FOREIGN KEY (version_id) REFERENCES public.dataset_version(id) ON DELETE CASCADE;
